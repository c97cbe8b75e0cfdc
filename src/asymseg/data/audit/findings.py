"""What an audit says: one sentence for each kind of fault, the files that have it, and the cure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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

    def to_dict(self) -> dict[str, Any]:
        """The form in which it stands in the JSON file."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "message": self.message,
            "cure": self.cure,
            "files": [str(path) for path in self.files],
        }


def most_serious_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then notes; the order within each stays."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def counted(names: Sequence[str], one: str, many: str) -> str:
    """`mask a` or `3 masks: a, b, c`: how many there are and the first of them."""
    return f"{one} {names[0]}" if len(names) == 1 else f"{len(names)} {many} ({listed(list(names), _SHOWN)})"
