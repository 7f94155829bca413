"""The fuzz targets for some seconds: their corpora, and what hypothesis makes of them. For longer: tools/fuzz."""

from __future__ import annotations

import importlib.util

import pytest
from fuzz.mutations import mutated
from fuzz.targets import CORPUS, TARGETS, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = {"policy": 60}  # a policy is compiled, the others are parsed


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_keeps_its_invariant(name: str) -> None:
    kept = seeds(name)
    assert kept
    for data in [b"", *kept]:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_made_of_the_corpus_keeps_its_invariant(name: str) -> None:
    @settings(max_examples=EXAMPLES.get(name, 250), suppress_health_check=[HealthCheck.too_slow])
    @given(mutated(name) | st.binary(max_size=200))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    awaited = {"proxyheader"} if importlib.util.find_spec("smtpgate.smtp.proxyheader") is None else set()
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS) | awaited
