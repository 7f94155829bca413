"""What `tools/bench` is made of: contenders, load, measures, workloads, report. The peers are tests/peers' own."""
