"""The loader's figures reach the terminal and the files, and the command can be passed on."""

import json
from pathlib import Path

import pytest

from asymseg.benchmarking.loader import loader_command, loader_tables
from asymseg.cli import main
from asymseg.data.measure import LoaderFigures
from asymseg.data.sample import write_sample

MADE_UP = LoaderFigures(
    workers=2,
    crop_size=(32, 48),
    batch_size=4,
    stages={"decode image": [0.002, 0.003, 0.004], "colours": [0.001, 0.001, 0.009]},
    loader=[80.0, 30.0, 90.0],
    rival=[100.0, 40.0, 100.0],
)


def test_tables_hold_medians_shares_and_the_paired_ratio():
    stages, whole = loader_tables(MADE_UP)
    assert stages.rows == (("decode image", "3 ms", "75%"), ("colours", "1 ms", "25%"), ("all", "4 ms", "100%"))
    assert [row[0] for row in whole.rows] == ["**training loader**", "decoding and resizing alone"]
    assert whole.rows[0][1].startswith("80 ±")
    assert whole.rows[0][2] == "0.8"  # of 0.8, 0.75 and 0.9
    assert whole.rows[1][2] == "1"
    assert whole.title == "Loader, workers 2, batch 4, crop 32x48"


def test_the_command_names_files_without_their_folders():
    given = {"data": {"workers": 2, "crop_size": (32, 48), "cache": Path("somewhere/cache"), "mean": None}}
    command = loader_command(Path("private/camvid"), "mine/run.yaml", given, quick=True)
    assert command == (
        "asymseg benchmark loader camvid --config run.yaml --data.workers 2 --data.crop_size 32 48 "
        "--data.cache cache --data.mean none --quick"
    )


def test_the_benchmark_runs_whole(tmp_path, capsys):
    write_sample(tmp_path / "scenes", train=8, val=2, test=1)
    flags = ["--data.workers", "0", "--train.batch_size", "4", "--data.crop_size", "32", "48", "--quick"]
    main(["benchmark", "loader", str(tmp_path / "scenes"), *flags, "--out", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.json", "results.md", "stages.png"]
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["images"] == "8"
    assert (content["workers"], content["batch_size"], content["crop_size"]) == (0, 4, [32, 48])
    assert len(content["loader"]) == len(content["rival"]) == 2
    assert min(content["loader"] + content["rival"]) > 0
    shown = capsys.readouterr().err
    text = (tmp_path / "out" / "results.md").read_text()
    for stage in content["stages"]:
        assert stage in shown
        assert f"| {stage} |" in text
    assert str(tmp_path) not in text + json.dumps(content)


@pytest.mark.parametrize(("arguments", "word"), [([], "data folder"), (["nowhere"], "nowhere")])
def test_data_that_is_not_there(arguments, word, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["benchmark", "loader", *arguments])
    assert leaving.value.code == 2
    assert word in capsys.readouterr().err
