"""Can the maps be believed? Localisation and faithfulness of a checkpoint, as Markdown tables.

    python benchmarks/maps.py CHECKPOINT DATA [--split test] [--n 300]

The folder's metadata.csv must tell where the faces are. results/maps.md was put together from this.
"""

import argparse
from pathlib import Path

from dclib.checkpoint import load_checkpoint
from dclib.explain.pointing import locate
from dclib.explain.sanity import Sample, hide_in_order, rank_agreement


def markdown(table, columns):
    """Rows of a table with value, low and high as one cell."""
    lines = [" | ".join(["", *columns, "value", "n", ""]), "|".join(["", *["---"] * 4, ""])]
    for row in table.to_dict("records"):
        value = f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        lines.append(" | ".join(["", *(row[c] for c in columns), value, str(row["n"]), ""]))
    return "\n".join(line.strip() for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--n", type=int, help="about so many pictures; all by default")
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.checkpoint)
    sample = Sample(checkpoint, args.data, args.split, args.n)
    for (region, measure), part in locate(sample).groupby(["region", "measure"], sort=False):
        about = f"chance {part['chance'].iloc[0]:.2f}, {part['excluded'].iloc[0]} excluded"
        print(f"\n## {region}, {measure} ({about})\n\n{markdown(part, ['map', 'measure'])}")
    features, groups = sample.features, sample.groups
    ranks = rank_agreement(checkpoint.model, features, groups).assign(measure="rank correlation")
    print(f"\n## Agreement with leave-one-out\n\n{markdown(ranks, ['map', 'measure'])}")
    temperature = checkpoint.config["temperature"]
    _, areas = hide_in_order(checkpoint.model, features, groups, sample.size, temperature)
    print(f"\n## Areas under the curves\n\n{markdown(areas, ['map', 'curve'])}")


if __name__ == "__main__":
    main()
