"""Which models are served, under which names, and that a replaced one is taken anew."""

import asyncio
import shutil
import weakref
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import asymseg
from asymseg.errors import CheckpointError, ConfigError
from asymseg.serving.loading import names_of, stamp_of
from asymseg.serving.metrics import Metrics
from asymseg.serving.models import Models


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("runs/camvid/best", "camvid"),
        ("runs/camvid", "camvid"),
        ("models/street.onnx", "street.onnx"),  # no file is there, so it may be a folder
        ("mine=runs/camvid/best", "mine"),
        ("owner/model", "model"),
        ("ann-r50-ade20k", "ann-r50-ade20k"),
        ("my model!", "my-model"),
    ],
)
def test_a_name_is_that_of_the_run_folder_or_file(given, named):
    assert list(names_of((given,))) == [named]


def test_a_file_bears_its_stem(tmp_path):
    (tmp_path / "a=b.onnx").write_bytes(b"x")
    assert names_of((str(tmp_path / "a=b.onnx"),)) == {"a-b": str(tmp_path / "a=b.onnx")}


def test_names_must_differ():
    with pytest.raises(ConfigError, match="NAME=b/best"):
        names_of(("x/b/best", "b/best"))
    with pytest.raises(ConfigError, match="no model"):
        names_of(())


def photo(picture):
    file = BytesIO()
    Image.fromarray(picture(40, 60)).save(file, format="PNG")
    return file.getvalue()


def mask_of(client, data, model=None):
    answer = client.post("/v1/predict?output=mask" + (f"&model={model}" if model else ""), content=data)
    with Image.open(BytesIO(answer.content)) as opened:
        return np.array(opened)


def test_several_models(starting, model, other, picture):
    data = photo(picture)
    with starting({"first": str(model), "second": str(other)}) as client:
        assert [each["name"] for each in client.get("/v1/models").json()] == ["first", "second"]
        expected = [asymseg.load(path, "cpu")(picture(40, 60)).mask for path in (model, other)]
        assert (expected[0] != expected[1]).any()
        np.testing.assert_array_equal(mask_of(client, data), expected[0])
        np.testing.assert_array_equal(mask_of(client, data, "first"), expected[0])
        np.testing.assert_array_equal(mask_of(client, data, "second"), expected[1])


def test_a_replaced_model_is_taken_anew_and_a_bad_one_is_not(starting, model, other, picture, tmp_path):
    data, place = photo(picture), tmp_path / "served"
    shutil.copytree(model, place)
    with starting({"street": str(place)}) as client:
        models, before = client.service.models, mask_of(client, data)
        first = client.get("/readyz").json()["models"]["street"]["version"]

        (place / "config.json").write_text("{}")
        models.reload("street")
        np.testing.assert_array_equal(mask_of(client, data), before)
        assert client.get("/readyz").json()["models"]["street"] == {"version": first, "reload_failed": True}
        assert "config.json" in client.get("/v1/models/street").json()["fault"]
        assert str(place) not in client.get("/readyz").text  # which anybody may read
        assert 'asymseg_reload_failures_total{model="street"} 1.0' in client.get("/metrics").text

        shutil.rmtree(place)
        shutil.copytree(other, place)
        models.reload("street")
        expected = asymseg.load(other, "cpu")(picture(40, 60)).mask
        np.testing.assert_array_equal(mask_of(client, data), expected)
        assert (expected != before).any()
        now = client.get("/readyz").json()["models"]["street"]
        assert now["version"] != first
        assert now["reload_failed"] is False
        assert 'asymseg_reloads_total{model="street"} 1.0' in client.get("/metrics").text


def test_a_replaced_model_is_held_by_nothing(starting, model, other, picture, tmp_path):
    data, place = photo(picture), tmp_path / "served"
    shutil.copytree(model, place)
    with starting({"street": str(place)}) as client:
        models = client.service.models
        before = weakref.ref(models.pick("street").model.predictor.network)
        name = client.post("/v1/predict?keep=true", content=data).json()["id"]
        assert client.get(f"/v1/predictions/{name}/pixel?row=0&column=0").status_code == 200
        shutil.rmtree(place)
        shutil.copytree(other, place)
        models.reload("street")
        client.service.kept.tidy()  # as it is every few seconds
        assert before() is None
        answer = client.get(f"/v1/predictions/{name}/pixel?row=0&column=0")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "expired")


def test_a_fault_of_another_kind_replaces_nothing_either(model, monkeypatch, caplog):
    models = Models({"street": str(model)}, "cpu", batch=1, coming=lambda: 0, metrics=Metrics())
    before = models.pick("street").model

    def gone(*arguments):
        raise FileNotFoundError(2, "No such file", "model.safetensors")

    monkeypatch.setattr("asymseg.serving.models.open_loaded", gone)
    models.reload("street")
    assert "model.safetensors" in models.faults["street"]
    assert "cannot be loaded anew" in caplog.text
    assert models.pick("street").model is before
    models.close()


def test_it_is_seen_that_a_model_was_replaced(model, other, tmp_path, monkeypatch):
    place = tmp_path / "served"
    shutil.copytree(model, place)
    models = Models({"street": str(place)}, "cpu", batch=1, coming=lambda: 0, metrics=Metrics())
    reloaded = []
    monkeypatch.setattr(models, "reload", lambda name: reloaded.append(name) or models._tried.update(street=now()))

    def now():
        return stamp_of(str(place))

    async def watching():
        task = asyncio.create_task(models.watch(0.01))
        await asyncio.sleep(0.1)
        assert reloaded == []
        shutil.rmtree(place)
        await asyncio.sleep(0.1)
        assert reloaded == []  # one that is gone replaces nothing
        shutil.copytree(other, place)
        for _ in range(500):
            await asyncio.sleep(0.01)
            if reloaded:
                break
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(watching())
    assert reloaded == ["street"]
    models.close()


def test_a_run_is_watched_at_its_best_model(model, tmp_path):
    shutil.copytree(model, tmp_path / "run" / "best")
    assert stamp_of(str(tmp_path / "run")) == stamp_of(str(tmp_path / "run" / "best")) != ()
    assert stamp_of("owner/model") == ()


def test_a_model_that_is_not_there_is_told_at_once(tmp_path):
    with pytest.raises(CheckpointError, match="not a model folder"):
        Models({"a": str(tmp_path)}, "cpu", batch=1, coming=lambda: 0, metrics=Metrics())
