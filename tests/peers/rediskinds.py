"""Redis in the ways that a store's URI can name: with TLS, behind Sentinel, as a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import redis
from certificates import make_certificates
from peers.process import HOST, Process, free_port, require, wait_until


class Server(Process):
    """One redis-server with these options beside the usual ones: nothing on disk, a port on HOST."""

    def __init__(
        self, folder: Path, options: Mapping[str, object], *, name: str = "redis", tls: bool = False
    ) -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        own: dict[str, object] = {"bind": HOST, "dir": folder, "save": "", "protected-mode": "no"}
        own |= {"port": 0, "tls-port": self.port} if tls else {"port": self.port}
        words = [word for key, value in (own | dict(options)).items() for word in (f"--{key}", str(value))]
        super().__init__(name, [require("redis-server"), *words], folder)
        self.wait_for_port(self.port)

    def client(self) -> redis.Redis:
        return redis.Redis(HOST, self.port, decode_responses=True)


class TlsRedis(Server):
    def __init__(self, folder: Path) -> None:
        made = make_certificates(folder)
        cert, key = made.server
        options = {"tls-cert-file": cert, "tls-key-file": key, "tls-ca-cert-file": made.ca, "tls-auth-clients": "no"}
        super().__init__(folder, options, tls=True)
        self.uri = f"rediss://{HOST}:{self.port}/0?ssl_ca_certs={made.ca}"


class Cluster(Server):
    """One node that serves every slot, which is a cluster as far as a client can tell."""

    def __init__(self, folder: Path, *, slots: bool = True) -> None:
        # Else a node takes another's address from its connection, which does not come from HOST.
        options = {"cluster-enabled": "yes", "cluster-port": free_port(), "cluster-announce-ip": HOST}
        # Whoever loses his last slot would become the replica of who has it now.
        options |= {"cluster-allow-replica-migration": "no"}
        super().__init__(folder, options, name="cluster")
        self.uri = f"redis+cluster://{HOST}:{self.port}"
        if slots:
            self.serve()

    def serve(self) -> None:
        with self.client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
        wait_until(self.up, "the cluster is up")

    def up(self) -> bool:
        with self.client() as client:
            return bool(client.cluster("INFO")["cluster_state"] == "ok")

    def peers(self) -> int:
        """Nodes that it knows, itself among them; one that it has only just heard of has no name yet."""
        with self.client() as client:
            return sum("handshake" not in one["flags"] for one in client.cluster("NODES").values())


class Nodes:
    """A cluster of two, of which the first serves every slot."""

    def __init__(self, folder: Path) -> None:
        self.first = Cluster(folder / "first")
        self.second = Cluster(folder / "second", slots=False)
        with self.first.client() as client:
            bus = client.config_get("cluster-port")["cluster-port"]
        with self.second.client() as client:
            client.execute_command("CLUSTER MEET", HOST, self.first.port, bus)
        for node in self.all:
            wait_until(lambda node=node: node.peers() == len(self.all), "the nodes know each other")  # type: ignore[misc]
            wait_until(node.up, "the cluster is up")

    @property
    def all(self) -> tuple[Cluster, Cluster]:
        return self.first, self.second

    def move(self, key: str, node: Cluster) -> None:
        """The key's slot is that node's from now on, for which it must have been the other's; what was in it is gone.

        In the order of the cluster's specification: a node that imports a slot gets a new epoch with it, and without
        one the other's last word on the slot, which may be on its way, would be believed.
        """
        [other] = [one for one in self.all if one is not node]
        with node.client() as new, other.client() as old:
            slot, name = new.execute_command("CLUSTER KEYSLOT", key), new.execute_command("CLUSTER MYID")
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old.execute_command("CLUSTER MYID"))
            old.flushall()
            new.execute_command("CLUSTER SETSLOT", slot, "NODE", name)
            old.execute_command("CLUSTER SETSLOT", slot, "NODE", name)

    def stop(self) -> None:
        for one in self.all:
            one.stop()


class Sentinel:
    """A master, its replica, and one sentinel that promotes the replica within a second or two."""

    def __init__(self, folder: Path) -> None:
        self._processes: list[Process] = []
        announced = {"replica-announce-ip": HOST, "repl-diskless-sync-delay": 0}
        self.master = self._start(Server(folder / "master", announced, name="master"))
        following = {"replicaof": f"{HOST} {self.master.port}"}
        self.replica = self._start(Server(folder / "replica", announced | following, name="replica"))
        with self.replica.client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", "the replica is in step")
        port = free_port()
        conf = folder / "sentinel.conf"
        conf.write_text(
            f"port {port}\nbind {HOST}\ndir {folder}\nprotected-mode no\n"
            f"sentinel monitor mymaster {HOST} {self.master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 200\nsentinel failover-timeout mymaster 2000\n"
        )
        sentinel = Process("sentinel", [require("redis-server"), str(conf), "--sentinel"], folder)
        self._processes.append(sentinel)
        sentinel.wait_for_port(port)
        with redis.Redis(HOST, port, decode_responses=True) as client:
            wait_until(lambda: len(client.sentinel_slaves("mymaster")) == 1, "the sentinel knows the replica")
        self.uri = f"redis+sentinel://{HOST}:{port}/mymaster"

    def _start(self, server: Server) -> Server:
        self._processes.append(server)
        return server

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.stop()
