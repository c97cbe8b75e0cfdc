"""List the published weights."""

import sys


def models() -> None:
    """List the published ANN weights that predict and evaluate take by name."""
    from asymseg.model.zoo import ZOO, cached_folder, home

    columns = "{:36} {:15} {:15} {:>9} {:>6} {:>9} {:>4}  {:11} {}\n"
    lines = [columns.format("name", "data set", "backbone", "crop", "mIoU", "ms + flip", "MB", "licence", "from")]
    lines += [
        columns.format(
            entry.name,
            entry.dataset,
            entry.backbone,
            f"{entry.crop[0]}x{entry.crop[1]}",
            f"{entry.miou:.2f}",
            f"{entry.miou_multi_scale:.2f}",
            entry.megabytes,
            entry.license,
            entry.framework + (" (fetched)" if cached_folder(entry) else ""),
        )
        for entry in ZOO.values()
    ]
    sys.stdout.write("".join(lines))
    sys.stdout.write(
        "\nThe mean IoUs, in percent on the validation images, are those that the publishers report. The licence is\n"
        f"that of their code; the data sets have terms of their own. What is fetched is kept in {home()}.\n"
    )
