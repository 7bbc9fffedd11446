"""What ``escn bench`` and the programs in ``benchmarks/`` share: clocks, counters and structures to measure on."""
