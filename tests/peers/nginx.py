"""nginx's mail proxy, which this project takes the place of: for comparing the two, and for using authsvc."""

from __future__ import annotations

from pathlib import Path

from peers.process import Process, require

# As root where the tests are: the folders of a test are readable by their owner only.
CONF = """\
{modules}
{user}
worker_processes {workers};
pid nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections {connections}; }}
mail {{
{mail}
}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{http}
}}
"""


class Nginx(Process):
    """`mail` and `http` are the insides of those two blocks; `port` is one that they open, to wait for.

    workers, connections: of worker_processes and worker_connections.
    """

    def __init__(
        self, folder: Path, mail: str, port: int, http: str = "", *, workers: int = 1, connections: int = 1024
    ) -> None:
        program = require("nginx")
        modules = [require("libnginx-mod-mail")]
        if "js_" in http:
            modules.append(require("libnginx-mod-http-js"))
        path = folder / "nginx.conf"
        path.write_text(
            CONF.format(
                modules="\n".join(f"load_module {module};" for module in modules),
                user="user root;" if folder.owner() == "root" else "",
                folder=folder,
                mail=mail,
                http=http,
                workers=workers,
                connections=connections,
            )
        )
        self.port = port
        self._log = folder / "error.log"
        # -e: before it has read its configuration nginx would write to /var/log.
        argv = [program, "-p", str(folder), "-c", str(path), "-e", str(self._log), "-g", "daemon off;"]
        super().__init__("nginx", argv, folder)
        self.wait_for_port(port)

    def log(self) -> str:
        return self._log.read_text(errors="replace")
