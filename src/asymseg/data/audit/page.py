"""The audit as one HTML page that needs nothing but itself: findings with overlays, and the figures of the set."""

from dataclasses import dataclass
from pathlib import Path

from asymseg.data.audit.audit import Audit
from asymseg.data.audit.findings import SEVERITIES, Finding
from asymseg.data.audit.pictures import lone_picture, pair_pictures
from asymseg.pages import hex_colour, render_page, save_page

SHOWN = 6
"""Files of a finding that are shown as pictures."""

_LISTED = 500


@dataclass(frozen=True)
class _Example:
    name: str
    pictures: list[tuple[str, str]]


def write_page(path: Path, audit: Audit, *, pictures: bool = True, channels: int = 3) -> Path:
    """Write the page; a file that was there stays until the new one is whole.

    Without `pictures` it can be passed on where the data may not.
    """
    save_page(path, render(audit, pictures=pictures, channels=channels))
    return path


def render(audit: Audit, *, pictures: bool = True, channels: int = 3) -> str:
    """The page as text. Images are read again for it, a few for each finding."""
    names = audit.classes.names if audit.classes is not None else ()
    totals = {split: max(1, sum(part.class_pixels)) for split, part in audit.splits.items()}
    return render_page(
        "asymseg.data.audit",
        "audit.html.j2",
        audit=audit,
        counts={severity: audit.count(severity) for severity in SEVERITIES},
        findings=[
            (finding, _examples(finding, audit, channels) if pictures else [], finding.files[:_LISTED])
            for finding in audit.findings
        ],
        names=names,
        colours=[hex_colour(colour) for colour in audit.classes.palette] if audit.classes else [],
        shares={
            split: [pixels / totals[split] for pixels in part.class_pixels]
            for split, part in audit.splits.items()
            if part.class_pixels
        },
        pixels=max(1, sum(count for _, count, _ in audit.values)),
        images=sum(len(part.pairs) for part in audit.splits.values()),
    )


def _examples(finding: Finding, audit: Audit, channels: int) -> list[_Example]:
    """The first of the files that can be shown."""
    wanted = set(finding.names[:SHOWN])
    pairs = {
        name: pair
        for split, part in audit.splits.items()
        for pair in part.pairs
        if (name := f"{split}/{pair.name}") in wanted
    }
    if finding.names:
        shown = [
            _Example(name, pair_pictures(pairs[name], audit.classes, channels))
            for name in finding.names[:SHOWN]
            if name in pairs
        ]
    else:
        images = [path for path in finding.files[:SHOWN] if path.suffix != ".json"]
        shown = [_Example(path.name, lone_picture(path)) for path in images]
    return [example for example in shown if example.pictures]
