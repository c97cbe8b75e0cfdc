"""Predictions over HTTP: equal to those offline, whatever the body, and every fault in one line."""

import base64
import json
import re
import struct
import tracemalloc
import zlib
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from starlette.datastructures import Headers

import asymseg
from asymseg.data.pixels import read_pixels
from asymseg.prediction.many.files import predict_files
from asymseg.prediction.overlay import colour_mask
from asymseg.serving.refusals import Refusal
from asymseg.serving.uploads import count_pixels, decode, image_bytes


def encoded(array, kind="PNG", **options):
    file = BytesIO()
    if kind == "npy":
        np.save(file, array)
    else:
        Image.fromarray(array).save(file, format=kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def street(picture):
    return picture(50, 70)


@pytest.fixture(scope="module")
def offline(model):
    return asymseg.load(model, "cpu")


def ids(answer):
    assert answer.status_code == 200, answer.text
    with Image.open(BytesIO(base64.b64decode(answer.json()["ids_png"]))) as opened:
        assert opened.mode == "L"
        return np.array(opened)


def fault(answer, status, code):
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert error["code"] == code
    assert len(error["message"].splitlines()) == 1
    assert "Traceback" not in answer.text
    return error["message"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "npy"])
def test_any_format_gives_what_it_gives_offline(client, offline, street, tmp_path, kind):
    data = encoded(street, kind)
    path = tmp_path / f"street.{kind.lower()}"
    path.write_bytes(data)
    np.testing.assert_array_equal(ids(client.post("/v1/predict", content=data)), offline(path).mask)


def test_every_way_to_send_an_image(client, offline, street):
    data, expected = encoded(street), offline(street).mask
    answers = [
        client.post("/v1/predict", content=data, headers={"content-type": "text/plain"}),  # the content decides
        client.post("/v1/predict", content=data, headers={"content-type": "application/x-www-form-urlencoded"}),
        client.post("/v1/predict", files={"image": ("what.exe", data, "text/html")}),
        client.post("/v1/predict", json={"image": base64.b64encode(data).decode()}),
    ]
    for answer in answers:
        np.testing.assert_array_equal(ids(answer), expected)


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).random((20, 30, 3), np.float32),
        np.random.default_rng(1).integers(0, 65536, (20, 30, 3), dtype=np.uint16),
        np.random.default_rng(2).integers(0, 256, (20, 30), dtype=np.uint8),
    ],
)
def test_arrays_of_every_scale(client, offline, array):
    np.testing.assert_array_equal(ids(client.post("/v1/predict", content=encoded(array, "npy"))), offline(array).mask)


def test_a_turned_photo_is_answered_upright(client, offline, street, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(street, "JPEG", exif=exif)
    (tmp_path / "turned.jpg").write_bytes(data)
    mask = ids(client.post("/v1/predict", content=data))
    assert mask.shape == (70, 50)
    np.testing.assert_array_equal(mask, offline(tmp_path / "turned.jpg").mask)


def test_the_json_counts_its_own_mask(client, offline, street):
    answer = client.post("/v1/predict", content=encoded(street)).json()
    mask = offline(street).mask
    assert (answer["model"], answer["height"], answer["width"], answer["id"]) == ("street", 50, 70, None)
    assert [each["name"] for each in answer["classes"]] == ["sky", "road", "tree"]
    assert [each["colour"] for each in answer["classes"]] == ["#010203", "#28323c", "#ff8000"]
    assert [each["pixels"] for each in answer["classes"]] == np.bincount(mask.ravel(), minlength=3).tolist()
    assert sum(each["share"] for each in answer["classes"]) == pytest.approx(1)
    assert answer["polygons"] is None
    assert answer["seconds"] > 0


def test_polygons_cover_the_mask(client, offline, street):
    from rasterio.features import rasterize

    answer = client.post("/v1/predict?polygons=true", content=encoded(street)).json()["polygons"]
    mask = offline(street).mask
    shapes = [(each["geometry"], each["properties"]["class_id"] + 1) for each in answer["features"]]
    np.testing.assert_array_equal(rasterize(shapes, mask.shape), mask + 1)
    assert sum(each["properties"]["pixels"] for each in answer["features"]) == mask.size
    assert len(shapes) == sum(ndimage.label(mask == number)[1] for number in range(3))
    assert {each["properties"]["class_name"] for each in answer["features"]} <= {"sky", "road", "tree"}


def test_files_are_those_that_predict_writes(client, offline, street, tmp_path):
    (tmp_path / "street.png").write_bytes(encoded(street))
    predict_files(offline, tmp_path / "street.png", tmp_path / "out", probabilities=True)
    names = {"mask": "street.png", "overlay": "street_overlay.jpg", "probabilities": "street_probabilities.npz"}
    kinds = {"mask": "image/png", "overlay": "image/jpeg", "probabilities": "application/octet-stream"}
    for output, name in names.items():
        answer = client.post(f"/v1/predict?output={output}", content=encoded(street))
        expected = (tmp_path / "out" / name).read_bytes()
        assert (answer.status_code, answer.headers["content-type"]) == (200, kinds[output])
        if output == "probabilities":  # a zip holds the time
            given, expected = np.load(BytesIO(answer.content)), np.load(BytesIO(expected))
            assert given["classes"].tolist() == ["sky", "road", "tree"]
            np.testing.assert_array_equal(given["probabilities"], expected["probabilities"])
            assert given["probabilities"].dtype == np.float16
        else:
            assert answer.content == expected


def test_opacity(client, offline, street):
    clear = client.post("/v1/predict?output=overlay&opacity=0", content=encoded(street)).content
    assert clear == encoded(street, "JPEG", quality=90)
    covered = client.post("/v1/predict?output=overlay&opacity=1", content=encoded(street)).content
    assert covered == encoded(colour_mask(offline(street).mask, offline.info.classes), "JPEG", quality=90)


def test_a_kept_prediction_answers_for_its_pixels(client, offline, street):
    answer = client.post("/v1/predict?keep=true", content=encoded(street)).json()
    result = offline(street)
    for row, column in ((0, 0), (49, 69), (20, 33)):
        said = client.get(f"/v1/predictions/{answer['id']}/pixel?row={row}&column={column}").json()
        shares = [each["probability"] for each in said["probabilities"]]
        assert shares == sorted(shares, reverse=True)
        assert said["class"] == said["probabilities"][0]["id"] == result.mask[row, column]
        for each in said["probabilities"]:
            assert each["probability"] == pytest.approx(result.probabilities[each["id"], row, column], abs=1e-5)
            assert each["name"] == ("sky", "road", "tree")[each["id"]]
        attention = result.attention(row, column)
        assert [block["block"] for block in said["attention"]] == ["afnb", "apnb"]
        for block, expected in zip(said["attention"], attention.blocks, strict=True):
            np.testing.assert_allclose([r["weight"] for r in block["regions"]], expected.weights, atol=1e-6)
            boxes = [[r["top"], r["bottom"], r["left"], r["right"]] for r in block["regions"]]
            np.testing.assert_array_equal(boxes, expected.boxes)


def test_questions_that_have_no_answer(client, street):
    name = client.post("/v1/predict?keep=true", content=encoded(street)).json()["id"]
    fault(client.get("/v1/predictions/nobody/pixel?row=0&column=0"), 404, "expired")
    assert "50 rows" in fault(client.get(f"/v1/predictions/{name}/pixel?row=50&column=0"), 422, "bad_parameter")
    fault(client.get(f"/v1/predictions/{name}/pixel?row=-1&column=0"), 422, "bad_parameter")
    assert "column" in fault(client.get(f"/v1/predictions/{name}/pixel?row=0"), 422, "bad_parameter")


@pytest.mark.parametrize(
    "query",
    ["output=picture", "opacity=2", "opacity=nan", "keep=perhaps", "ouput=mask", "output=mask&keep=true", "polygons=2"],
)
def test_wrong_parameters_are_named(client, street, query):
    message = fault(client.post(f"/v1/predict?{query}", content=encoded(street)), 422, "bad_parameter")
    assert query.partition("&")[2].partition("=")[0] in message if "&" in query else query.split("=")[0] in message


def test_a_model_that_is_not_served(client, street):
    assert "street" in fault(client.post("/v1/predict?model=other", content=encoded(street)), 404, "no_model")
    fault(client.get("/v1/models/other"), 404, "no_model")


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width, height):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000)))


NOISE = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)


def tiff(array, **options):
    file = BytesIO()
    tifffile.imwrite(file, array, metadata=None, **options)
    return file.getvalue()


def retold(data, tag, before, after):
    """A TIFF file whose head says another number of one thing."""
    kind = 4 if (told := struct.pack("<HHII", tag, 4, 1, before)) in data else 3
    told = told if kind == 4 else struct.pack("<HHIHH", tag, 3, 1, before, 0)
    assert data.count(told) == 1
    return data.replace(told, struct.pack("<HHII", tag, 4, 1, after))


def wide_tiff():
    return retold(encoded(NOISE, "TIFF"), 256, 99, 10**9)


def wide_tile():
    data = tiff(NOISE[:16, :16], photometric="rgb", tile=(16, 16), compression="zlib")
    return retold(retold(data, 322, 16, 2**14), 323, 16, 2**14)


def swelling_tiff():
    """Sixteen rows, in a strip that unpacks to 4096."""
    zeros = np.zeros((4096, 64, 3), np.uint16)
    return retold(tiff(zeros, photometric="rgb", rowsperstrip=4096, compression="zlib"), 257, 4096, 16)


def packed_tiff():
    return tiff(np.zeros((16, 16, 3), np.uint16), photometric="rgb", compression="lzma")


def npy_head(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def looping_tiff():
    return b"II*\0" + struct.pack("<IHI", 8, 0, 8)


def many_pages():
    file = BytesIO()
    pages = [Image.new("L", (2, 2))] * 300
    pages[0].save(file, format="TIFF", save_all=True, append_images=pages[1:])
    return file.getvalue()


def many_scans():
    data = encoded(np.zeros((8, 8, 3), np.uint8), "JPEG", progressive=True)
    place = data.rindex(b"\xff\xda")
    return data[:place] + data[place:-2] * 200 + b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "bad_image"),
        (b"not an image", 400, "bad_image"),
        (b"GIF89a" + bytes(50), 400, "bad_image"),
        (encoded(np.zeros((9, 9, 3), np.uint8), "GIF"), 400, "bad_image"),  # Pillow could; nothing more than promised
        (encoded(NOISE)[:3000], 400, "bad_image"),
        (encoded(NOISE, "JPEG")[:3000], 400, "bad_image"),
        (encoded(NOISE, "TIFF")[:3000], 400, "bad_image"),
        (encoded(NOISE, "WEBP")[:1000], 400, "bad_image"),
        (bomb(60_000, 60_000), 413, "too_large"),
        (bomb(5_000, 4_001), 413, "too_large"),
        (bomb(5_000, 4_000), 400, "bad_image"),  # not too many; but they are not there
        (wide_tiff(), 413, "too_large"),
        (wide_tile(), 413, "too_large"),
        (swelling_tiff(), 400, "bad_image"),
        (packed_tiff(), 400, "bad_image"),
        (npy_head("{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 3), }\n"), 400, "bad_image"),
        (npy_head("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 3), }\n") + bytes(24), 400, "bad_image"),
        (npy_head("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -1, 3), }\n") + bytes(3), 400, "bad_image"),
        (npy_head("__import__('os').system('true')\n"), 400, "bad_image"),
        (encoded(np.zeros((2, 2, 2, 3), np.uint8), "npy"), 400, "bad_image"),
        (encoded(np.zeros((0, 4, 3), np.uint8), "npy"), 400, "bad_image"),
        (encoded(np.full((4, 4, 3), np.nan), "npy"), 400, "bad_image"),
        (encoded(np.zeros((4, 4, 5), np.uint8), "npy"), 400, "bad_image"),
        (looping_tiff(), 400, "bad_image"),
        (many_pages(), 400, "bad_image"),
        (many_scans(), 400, "bad_image"),
        (b"II*\0", 400, "bad_image"),
    ],
)
def test_bad_images_are_told_from_good_ones(client, data, status, code):
    fault(client.post("/v1/predict", content=data), status, code)


def test_planes_that_are_only_named_are_not_made_room_for(client):
    pixels = '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="8" SizeY="8" SizeC="1" SizeT="1" SizeZ='
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'{pixels}"1000000"><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
    data = tiff(np.zeros((8, 8), np.uint8), description=xml)
    with tifffile.TiffFile(BytesIO(data)) as opened:
        assert opened.series[0].shape == (1_000_000, 8, 8)  # so the trap works
    answer = client.post("/v1/predict", content=data)
    assert (answer.status_code, answer.json()["height"], answer.json()["width"]) == (200, 8, 8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("packed", [None, "zlib"])
@pytest.mark.parametrize(
    "options", [{}, {"tile": (32, 48)}, {"rowsperstrip": 7}, {"bigtiff": True}, {"byteorder": ">"}, {"planes": True}]
)
def test_tiff_files_of_every_form_are_taken(picture, tmp_path, dtype, packed, options):
    array = picture(50, 70).astype(dtype) if dtype != np.float32 else picture(50, 70).astype(dtype) / 255
    options = dict(options)
    if options.pop("planes", False):
        array, options = np.ascontiguousarray(array.transpose(2, 0, 1)), {"planarconfig": "separate"}
    (tmp_path / "a.tif").write_bytes(data := tiff(array, photometric="rgb", compression=packed, **options))
    assert 3500 <= count_pixels(data, 20_000_000) < 10_000
    np.testing.assert_array_equal(decode(data, 3), read_pixels(tmp_path / "a.tif", 3))


def test_an_image_names_no_other_file(client, tmp_path):
    """An OME-TIFF file says which other files hold its planes; they are not looked for."""
    other = tmp_path / "secret.tif"
    tifffile.imwrite(other, np.full((8, 8), 200, np.uint8))
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="8" SizeY="8" SizeC="3" '
        f'SizeZ="1" SizeT="1"><TiffData FirstC="0" IFD="0" PlaneCount="3"><UUID FileName="{other}">urn:uuid:2</UUID>'
        "</TiffData></Pixels></Image></OME>"
    )
    mine = tmp_path / "mine.ome.tif"
    tifffile.imwrite(mine, np.zeros((8, 8), np.uint8), description=xml, metadata=None)
    assert tifffile.imread(mine).max() == 200  # so the trap works
    answer = client.post("/v1/predict?output=overlay&opacity=0", content=mine.read_bytes())
    assert answer.status_code == 200
    with Image.open(BytesIO(answer.content)) as opened:
        assert np.array(opened).max() < 20


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "application/json"}, b"{"),
        ({"content-type": "application/json"}, b"[" * 100_000),
        ({"content-type": "application/json"}, b'{"image": 5}'),
        ({"content-type": "application/json"}, b'{"image": "*"}'),
        ({"content-type": "application/json"}, b'{"url": "http://localhost/x.png"}'),
        ({"content-type": "application/json"}, b'{"image": "", "path": "/etc/hostname"}'),
        ({"content-type": "multipart/form-data"}, b"x"),
        ({"content-type": "multipart/form-data; boundary=b"}, b"x"),
        (
            {"content-type": "multipart/form-data; boundary=b"},
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n',
        ),
    ],
)
def test_bad_bodies_are_refused(client, headers, body):
    fault(client.post("/v1/predict", content=body, headers=headers), 400, "bad_body")


@pytest.mark.parametrize(
    ("body", "cure"),
    [
        (b'{"image": "aGVsbG8="}', "the body looks like JSON; send .* the header content-type: application/json"),
        (b"image=@photo.jpg", "the form holds no file; send it as in curl -F image=@photo.jpg"),
    ],
)
def test_what_curl_sends_with_d_is_answered_with_the_cure(client, body, cure):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert re.search(cure, fault(client.post("/v1/predict", content=body, headers=headers), 400, "bad_body"))


def test_json_is_not_unfolded_into_many_times_its_size():
    for body in (b'{"image": [' + b"{}," * 100_000 + b"0]}", b"{" + b'"a":0,' * 100_000 + b'"image":""}'):
        tracemalloc.start()
        with pytest.raises(Refusal, match="not as expected"):
            image_bytes(Headers({"content-type": "application/json"}), body)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < len(body)


def test_a_form_without_a_file_or_with_two(client, street):
    message = fault(client.post("/v1/predict", files={"photo": encoded(street)}), 400, "bad_body")
    assert "no file `image`" in message
    two = [("image", ("a", encoded(street))), ("image", ("b", encoded(street)))]
    fault(client.post("/v1/predict", files=two), 400, "bad_body")


def test_models_are_described(client, model):
    (said,) = client.get("/v1/models").json()
    assert client.get("/v1/models/street").json() == said
    assert (said["name"], said["license"], said["source"], said["device"]) == ("street", "Apache-2.0", "made up", "cpu")
    assert said["classes"][2] == {"id": 2, "name": "tree", "colour": "#ff8000"}
    assert said["preprocessing"] == {"channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3, "channel_order": "RGB"}
    assert said["metrics"] == {"miou": 0.5, "iou": [0.1, None]}  # JSON has no nan
    assert said["attention"] is True
    assert said["seeing"] == "scale 1"
    assert said["fault"] is None
    assert said["parameters"] == sum(p.numel() for p in asymseg.load(model, "cpu", fold=False).network.parameters())


def test_the_description_of_the_api_is_whole(client):
    content = client.get("/openapi.json").json()
    assert set(content["paths"]) == {
        "/v1/predict",
        "/v1/predictions/{name}/pixel",
        "/v1/models",
        "/v1/models/{name}",
        "/examples",
        "/examples/{name}",
        "/livez",
        "/readyz",
        "/metrics",
    }
    for path in content["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if status != "200":
                    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Refused"}
    assert "http" not in json.dumps(content["paths"])
    for address in ("/docs", "/redoc"):
        assert client.get(address).status_code == 404  # they would load from elsewhere


def test_health_and_numbers(client, street):
    client.post("/v1/predict", content=encoded(street))
    client.post("/v1/predict", content=b"x")
    assert client.get("/livez").json() == {"live": True}
    ready = client.get("/readyz").json()
    assert ready["ready"] is True
    assert ready["models"]["street"]["reload_failed"] is False
    numbers = client.get("/metrics").text
    for line in (
        'asymseg_requests_total{method="POST",route="/v1/predict",status="200"}',
        'asymseg_requests_total{method="POST",route="/v1/predict",status="400"}',
        'asymseg_batch_images_count{model="street"}',
        'asymseg_queue_length{model="street"} 0.0',
        "asymseg_requests_in_work 0.0",
    ):
        assert line in numbers


def test_examples(client, starting, street, tmp_path):
    for example in client.get("/examples").json():
        answer = client.get(example["url"])
        assert answer.headers["content-type"] == "image/png"
        assert Image.open(BytesIO(answer.content)).size == (192, 96)
    (tmp_path / "a b.jpg").write_bytes(encoded(street, "JPEG"))
    (tmp_path / "notes.txt").write_text("none of it")
    with starting(examples=tmp_path) as other:
        assert other.get("/examples").json() == [{"name": "a b.jpg", "url": "/examples/a%20b.jpg"}]
        assert other.get("/examples/a%20b.jpg").content == (tmp_path / "a b.jpg").read_bytes()
        for name in ("notes.txt", "..%2fx.jpg", "%2fetc%2fhostname", "scene-1.png"):
            fault(other.get(f"/examples/{name}"), 404, "not_found")


@pytest.mark.parametrize("name", ["../app.py", "..%2fapp.py", "%2fetc%2fhostname", "nothing.js", "."])
def test_the_page_has_its_own_files_and_no_others(client, name):
    fault(client.get(f"/page/{name}"), 404, "not_found")
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert client.get("/page/page.js").headers["content-type"] == "text/javascript; charset=utf-8"


def test_other_methods_and_addresses(client):
    fault(client.get("/v1/predict"), 405, "wrong_method")
    fault(client.get("/nothing"), 404, "not_found")
