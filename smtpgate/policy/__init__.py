"""PURE. Facts of a session -> Decision, by the operators' limits.

The language: schema (its shape), compile (validated files -> Policy) over limits, terms, replies and sets; match over
fields, patterns, addresses and times; keys (whose bucket). select says which limits apply, index makes that cheap,
covers finds what can never apply.

The counting: engine (select, one store call, judge), bucket (the arithmetic), store (the port that keeps the
buckets), storeuri (the URI that names one). Time and chance are arguments. Knows neither `smtp` nor `routing`.
"""
