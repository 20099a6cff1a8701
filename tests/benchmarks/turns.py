"""Contestants that are timed in turns: CPU seconds of this process, each the least of some rounds, for a shared machine disturbs them."""

import time


def seconds(contestants, rounds=3):
    """The least time of each, by name."""
    least = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.process_time()
            run()
            least[name] = min(least[name], time.process_time() - start)
    return least


def compare(benchmark, what, ours, peers, rounds=3):
    """Time ours and its peers, and leave ours / fastest peer with the benchmark. The tests time nothing: there ours runs once."""
    if not benchmark.disabled:
        least = seconds({"ours": ours, **peers}, rounds)
        fastest = min(peers, key=least.__getitem__)
        benchmark.extra_info |= {"fastest peer": fastest, "ratio": least["ours"] / least[fastest], **least}
        told = ", ".join(f"{name} {took:.3f} s" for name, took in least.items())
        print(f"\n{what}: {told}, ours / {fastest} = {benchmark.extra_info['ratio']:.3f}")
    benchmark.pedantic(ours, rounds=1)
