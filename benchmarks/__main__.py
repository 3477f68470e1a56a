"""Run the benchmarks named, or all."""

import argparse
import sys

# before modules are imported that are Linux's alone
if sys.platform != "linux":
    sys.exit("python -m benchmarks: memory and processes are measured by /proc, which Linux alone has; run them there")

from benchmarks import (
    alignment,
    atlas,
    bible,
    bulk,
    fine_tuning,
    generating,
    gpt_training,
    guided,
    ladder,
    listening,
    opening,
    pointing,
    preparing,
    profiling,
    quality,
    reading,
    scale,
    second_domain,
    sources,
    speech,
    startup,
    training,
    translating,
    viewing,
    viewing_pictures,
)

BENCHMARKS = {
    "startup": startup.run,
    "preparing": preparing.run,
    "ladder": ladder.run,
    "bible": bible.run,
    "second-domain": second_domain.run,
    "alignment": alignment.run,
    "guided-alignment": guided.run,
    "training": training.run,
    "profiling": profiling.run,
    "translating": translating.run,
    "bulk": bulk.run,
    "quality": quality.run,
    "reading": reading.run,
    "sources": sources.run,
    "pointing": pointing.run,
    "atlas": atlas.run,
    "speech": speech.run,
    "listening": listening.run,
    "viewing": viewing.run,
    "viewing-pictures": viewing_pictures.run,
    "opening": opening.run,
    "scale": scale.run,
    "generating": generating.run,
    "gpt-training": gpt_training.run,
    "fine-tuning": fine_tuning.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; by default all")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - BENCHMARKS.keys():
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    for name in names:
        BENCHMARKS[name]()


main()
