"""Run the benchmarks named, or all."""

import argparse

from benchmarks import ladder, startup

BENCHMARKS = {"startup": startup.run, "ladder": ladder.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which; by default all")
    for name in parser.parse_args().names or BENCHMARKS:
        BENCHMARKS[name]()


main()
