"""The commands on the pages, and what a reader needs for them besides this package."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS = {
    "weights or files of the reader's": r"\b[A-Z]{3,}\b|hf://|person\.jpg|\bmade/|\blist\.csv|\bmy_videos/|\bdataset/|\bresult_a/",
    "a device, a cluster or a browser": r"^gcloud |^srun |^stableanimator app|distributed\.start|benchmarks\.report",
    "the network": r"\bpip (install|download)\b|^python3 -m venv",
    "hours": r"-m (pytest|benchmarks\.)|drawn_world (ablate|arcface|control|alignment|drift|evaluate|compare|fit)\b",
    "what hours of training left": r"outputs/drawn_world/fit/",
}
"""What tells a command by its words, by what it needs. The others need nothing."""


def blocks(page: Path) -> list[str]:
    """The page's commands, in their order, one a line of its blocks of bash."""
    found = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = "\n".join(found).replace("\\\n", " ").splitlines()
    commands = [re.sub(r"\s+", " ", re.sub(r"(^|\s)#.*", "", line)).strip() for line in lines]
    return [command for command in commands if command]


def needs(command: str) -> str | None:
    """What the reader must have for it; None for nothing."""
    return next((what for what, words in NEEDS.items() if re.search(words, command)), None)
