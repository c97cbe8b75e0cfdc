"""What an audit says: one sentence for each kind of fault, the files that have it, and the cure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from asymseg.data.audit.scan import PairFacts
from asymseg.data.pairing import listed

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""An error stops or spoils training; a warning costs accuracy or makes scores untrue; a note is worth knowing."""

_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One kind of fault; `files` are all that have it."""

    severity: Severity
    kind: str
    message: str
    """One sentence: what is wrong, and where."""
    cure: str
    files: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    """The pairs, as SPLIT/NAME, that these files belong to; none for a file without a counterpart."""

    def to_dict(self) -> dict[str, Any]:
        """The form in which it stands in the JSON file."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "message": self.message,
            "cure": self.cure,
            "files": [str(path) for path in self.files],
            "pairs": list(self.names),
        }


def of_images(severity: Severity, kind: str, message: str, cure: str, pairs: Sequence[PairFacts]) -> Finding:
    """A finding about the images of `pairs`."""
    files, names = tuple(facts.pair.image for facts in pairs), tuple(facts.name for facts in pairs)
    return Finding(severity, kind, message, cure, files, names)


def of_masks(severity: Severity, kind: str, message: str, cure: str, pairs: Sequence[PairFacts]) -> Finding:
    """A finding about the masks of `pairs`."""
    files, names = tuple(facts.pair.mask for facts in pairs), tuple(facts.name for facts in pairs)
    return Finding(severity, kind, message, cure, files, names)


def most_serious_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then notes; the order within each stays."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def the_images(pairs: Sequence[PairFacts]) -> str:
    """How many there are and which: `the image train/a`, or `3 images (train/a, train/b, val/c)`."""
    return counted([facts.name for facts in pairs], "the image", "images")


def the_masks(pairs: Sequence[PairFacts]) -> str:
    """The same of masks."""
    return counted([facts.name for facts in pairs], "the mask", "masks")


def counted(names: Sequence[str], one: str, many: str) -> str:
    """`mask a` or `3 masks: a, b, c`: how many there are and the first of them."""
    return f"{one} {names[0]}" if len(names) == 1 else f"{len(names)} {many} ({listed(list(names), _SHOWN)})"
