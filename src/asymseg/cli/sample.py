"""Write the built-in scenes."""

from pathlib import Path

from asymseg.cli.terminal import make_console


def sample(folder: Path, *, train: int = 256, val: int = 64, test: int = 64) -> None:
    """Write the built-in scenes as a data set on disk.

    In each scene a coloured beacon decides the class of identical grey discs, wherever they are: what a network can
    label only if it sees the whole image.

    Parameters
    ----------
    folder
        Where the data set is written; it must not exist yet, or be empty.
    train
        Scenes to learn from.
    val
        Scenes to choose the best model by.
    test
        Scenes to measure it on.
    """
    from asymseg.data.sample import write_sample

    write_sample(folder, train=train, val=val, test=test)
    then = f"asymseg train {folder} --config sample --out runs/{folder.name}"
    make_console().print(f"wrote {train + val + test} scenes to {folder}; next: {then}")
