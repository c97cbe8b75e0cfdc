# %% [markdown]
# # A walk through asymseg, cell by cell
#
# Made-up scenes, a small network, a measured model, and why its pixels are what they are. Each `# %%` is a cell where
# an editor or Jupyter (through jupytext) shows this file as a notebook; `python examples/walk.py` runs all of it.

# %%
import sys
from pathlib import Path

import asymseg
from asymseg.config import make_config, read_config
from asymseg.data.dataset import open_dataset
from asymseg.data.sample import write_sample

out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/walk")
steps, scenes = (int(argument) for argument in (sys.argv[2:4] or ("100", "256")))

# %% [markdown]
# Scenes on disk, as your own data would lie there: images, masks, classes.json.

# %%
write_sample(out / "scenes", train=scenes, val=max(1, scenes // 4), test=max(1, scenes // 4))
dataset = open_dataset(out / "scenes")
print(dataset.classes.names, {split: len(pairs) for split, pairs in dataset.splits.items()})

# %% [markdown]
# What `asymseg check` does: every pixel of every mask is looked at before anything is trained.

# %%
found = asymseg.audit(out / "scenes")
print({severity: found.count(severity) for severity in ("error", "warning", "note")})

# %% [markdown]
# A run. Settings are those of a recipe, with what this cell changes on top.

# %%
config = make_config(read_config("sample"), {"train": {"steps": steps, "batch_size": min(16, scenes)}})
best = asymseg.train(dataset, config, out=out / "run")
print(f"validation mIoU {best.scores.miou:.3f}; curves and confusions in {out / 'run' / 'report.html'}")

# %% [markdown]
# The test images were neither trained on nor used to choose the model.

# %%
predictor = asymseg.load(out / "run" / "best")
result = asymseg.evaluate(predictor, dataset, "test", out=out / "test")
for name, iou in zip(dataset.classes.names, result.scores.iou, strict=True):
    print(f"{name:12} {iou:.3f}")

# %% [markdown]
# One image, and where the blocks looked to name one of its pixels.

# %%
pair = dataset.splits["test"][0]
answer = predictor(pair.image)
answer.overlay().save(out / "overlay.png")
rows, columns = (answer.mask >= 2).nonzero()
row, column = (int(rows[0]), int(columns[0])) if len(rows) else (48, 96)
attention = answer.attention(row, column)
attention.picture("fusion", enlarge=3).save(out / "attention.png")
strongest = attention["fusion"].weights.argmax()
print(f"pixel {row}, {column} drew most on rows and columns {attention['fusion'].boxes[strongest].tolist()}")
