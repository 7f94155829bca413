"""PURE. Facts of a session -> Decision, by the operators' limits.

compile (a validated document -> Policy), match (precompiled matchers), bucket (token-bucket arithmetic), store
(the port that keeps the buckets), storeuri (the URI that names one), engine (plan the charges, one store call,
judge). Time and chance are arguments. Knows neither `smtp` nor `routing`.
"""
