"""Compare two models."""

from pathlib import Path

from asymseg.cli.terminal import make_console, progress_bar

FEW = 30
"""Images below which an interval by bootstrap is often too narrow."""


def compare(
    a: str,
    b: str,
    data: Path | None = None,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    split: str = "val",
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
    out: Path | None = None,
    gallery: bool = True,
    device: str = "auto",
    workers: int = 2,
) -> None:
    """Say whether model B is better than model A, or whether these images cannot tell; writes compare.html.

    Parameters
    ----------
    a
        A model, as for evaluate; or the folder of an evaluation of one, which is then not repeated.
    b
        Likewise.
    data
        A data folder of the models' classes; not needed for two evaluations.
    images
        Folder of images, in place of DATA.
    masks
        Folder of masks for --images.
    split
        Which part: train, val or test; two evaluations bring their own.
    level
        How sure to be: at 0.95, B is better if the middle 95 % of the differences are all above 0.
    replicates
        Sets of images that are drawn from these.
    seed
        Of the draws.
    out
        Folder for compare.json and compare.html.
    gallery
        Whether the page shows images; that needs models, not evaluations.
    device
        auto, cpu, cuda or mps.
    workers
        Threads that decode images ahead.
    """
    from asymseg.evaluation.compare import compare as run

    console = make_console()
    out = out or Path("comparison")
    with progress_bar(console, "compare", waits=True) as advance:
        result = run(
            a,
            b,
            data,
            split,
            images=images,
            masks=masks,
            level=level,
            replicates=replicates,
            seed=seed,
            out=out,
            gallery=gallery,
            device=device,
            workers=workers,
            progress=advance,
        )
    if len(result.images) < FEW:
        console.print(f"[yellow]warning:[/yellow] {len(result.images)} images are few for a verdict; measure on more")
    difference = result.difference
    console.print(
        f"{result.split}, {len(result.images)} images: mIoU of A {result.miou[0]:.4f}, of B {result.miou[1]:.4f}; "
        f"B minus A {difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f} at {100 * level:g} %); "
        f"B above A in {100 * result.probability:.1f} % of replicates: {result.verdict}; see {out / 'compare.html'}",
        markup=False,
        highlight=False,
    )
