"""datasets.prepare: downloads from a server on 127.0.0.1, unpacking, and the check on the miniature trees."""

import errno
import hashlib
import io
import os
import re
import shutil
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from common.errors import UserError
from datasets.general10 import DescribableTextures, FGVCAircraft, OxfordFlowers
from datasets.prepare import __main__ as prepare, fetch
from datasets.sources import Source
from tests import test_datasets_general as general, test_datasets_special as special
from tests.helpers import run
from tests.test_datasets_general import write_split_zhou


# ------------------------------------------------------------------ a server and archives
@pytest.fixture
def server():
    """Serves `files` {path: bytes}, with `headers`; closes the connection after `cut` bytes. `asked`: the paths."""
    class Server(ThreadingHTTPServer):
        cut, daemon_threads = None, True

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            if self.path not in self.server.files:
                self.send_error(404)
                return
            body = self.server.files[self.path]
            self.send_response(200)
            for name, value in {"Content-Length": len(body), **self.server.headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body[:self.server.cut])

        def log_message(self, *args):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.headers = {}, [], {}
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def tar_of(folder, top):
    """A tar.gz of all in `folder`, below the folder `top`."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(folder, top)
        return buffer.getvalue()


def zip_of(files):
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return buffer.getvalue()


def checksum(content, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def tree(folder):
    """{path: content} of all files, without the lock."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*"))
            if path.is_file() and path.name != ".prepare.lock"}


@pytest.fixture
def dtd(server, tmp_path, monkeypatch):
    """An archive of a miniature DTD on the server, which the class has as its source; returns the archive's bytes."""
    general.make(tmp_path / "made", "dtd", 47)
    content = tar_of(tmp_path / "made" / "dtd", "dtd")
    server.files["/dtd.tar.gz"] = content
    monkeypatch.setattr(DescribableTextures, "sources", (Source(
        "the page", folders=("images",), url=f"{server.address}/dtd.tar.gz", checksum=checksum(content)),))
    (tmp_path / "root").mkdir()
    return content


def call(root, *arguments):
    return prepare.main([*arguments, "--root", str(root), "--unverified"])  # the server has plain http


# ------------------------------------------------------------------ downloads
def test_download_unpack_and_read(dtd, server, tmp_path, capsys):
    root = tmp_path / "root"
    assert call(root, "dtd") == 0
    table = capsys.readouterr().out
    assert [row.split() for row in table.splitlines() if row.startswith("dtd ")] == [["dtd", "yes", "47", "235"]]
    assert tree(root / "dtd" / "images") == tree(tmp_path / "made" / "dtd" / "images")
    assert (root / "dtd" / "dtd.tar.gz").read_bytes() == dtd  # kept
    assert {path.name for path in (root / "dtd").iterdir()} <= {"images", "dtd.tar.gz", ".prepare.lock"}
    dataset = general.build(root, "dtd")
    assert dataset.num_classes == 47 and len(dataset.train_x + dataset.val + dataset.test) == 235
    assert call(root, "dtd") == 0 and server.asked == ["/dtd.tar.gz"]  # nothing is fetched twice


@pytest.mark.parametrize("checked", [True, False])
def test_a_cut_connection(checked, dtd, server, tmp_path, monkeypatch, capsys):
    root, folder = tmp_path / "root", tmp_path / "root" / "dtd"
    if not checked:
        source = Source("the page", folders=("images",), url=f"{server.address}/dtd.tar.gz")
        monkeypatch.setattr(DescribableTextures, "sources", (source,))
    server.cut = 1000
    assert call(root, "dtd") == 1
    error = capsys.readouterr().err
    assert (f"could not download {server.address}/dtd.tar.gz to {folder}/dtd.tar.gz " in error
            and f"1000 bytes read, {len(dtd) - 1000} more expected" in error and "starts this file anew" in error)
    assert tree(folder) == {}
    (folder / "dtd.tar.gz.part").write_bytes(b"of a killed call")
    assert call(root, "dtd", "--check") == 1 and list(tree(folder)) == ["dtd.tar.gz.part"]
    server.cut = None
    assert call(root, "dtd") == 0
    assert (folder / "dtd.tar.gz").read_bytes() == dtd and len(tree(folder / "images")) == 235
    assert not (folder / "dtd.tar.gz.part").exists()


@pytest.mark.parametrize("url, checksum, said", [
    ("http://there/x.zip", "md5:0", "http://there/x.zip is fetched over plain http"),
    ("https://there/x.zip", "", "no checksum is published for https://there/x.zip")])
def test_what_may_have_been_changed_is_fetched_only_if_the_user_says_so(url, checksum, said, tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(fetch, "download", lambda source, path: fetched.append(source.url))
    source = Source("the page", folders=("images",), url=url, checksum=checksum)
    with pytest.raises(UserError, match=f"{said}, so .* add --unverified"):
        fetch.fetch(source, str(tmp_path), unverified=False)
    assert not fetched
    fetch.fetch(source, str(tmp_path), unverified=True)
    assert fetched == [url]


def test_an_archive_stays_packed_whatever_the_server_calls_it(dtd, server, tmp_path):
    server.headers["Content-Encoding"] = "x-gzip"
    assert call(tmp_path / "root", "dtd") == 0
    assert (tmp_path / "root" / "dtd" / "dtd.tar.gz").read_bytes() == dtd


def test_a_wrong_checksum_leaves_nothing(dtd, server, tmp_path, capsys):
    server.files["/dtd.tar.gz"] = dtd[:-9] + b"123456789"
    assert call(tmp_path / "root", "dtd") == 1
    assert f"{server.address}/dtd.tar.gz arrived with the SHA256 " in capsys.readouterr().err
    assert tree(tmp_path / "root" / "dtd") == {}


def test_an_archive_that_is_there_is_used_or_refused(dtd, server, tmp_path, capsys):
    folder = tmp_path / "root" / "dtd"
    folder.mkdir()
    (folder / "dtd.tar.gz").write_bytes(b"the user's")
    assert call(tmp_path / "root", "dtd") == 1
    assert f"{folder}/dtd.tar.gz has the SHA256 " in capsys.readouterr().err
    assert tree(folder) == {"dtd.tar.gz": b"the user's"} and server.asked == []
    (folder / "dtd.tar.gz").write_bytes(dtd)
    assert call(tmp_path / "root", "dtd") == 0 and server.asked == []


def test_no_network_and_no_such_file(dtd, server, tmp_path, monkeypatch, capsys):
    server.files.clear()
    assert call(tmp_path / "root", "dtd") == 1
    assert "dtd.tar.gz (404 Client Error: Not Found for url: " in capsys.readouterr().err
    source = Source("the page", folders=("images",), url="http://127.0.0.1:9/dtd.tar.gz")  # nothing listens there
    monkeypatch.setattr(DescribableTextures, "sources", (source,))
    assert call(tmp_path / "root", "dtd") == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"dtd: could not download http://127.0.0.1:9/dtd.tar.gz to .*/dtd.tar.gz \(.*refused.*\): "
                        r"check the network and run the same command again, .*, or fetch it from the page\n", error)
    assert "Max retries" not in error and tree(tmp_path / "root" / "dtd") == {}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's disk that is always full")
def test_a_full_disk_while_downloading(dtd, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "root" / "dtd"
    monkeypatch.setattr(pooch.downloaders, "open", lambda path, mode: open("/dev/full", mode), raising=False)
    assert call(tmp_path / "root", "dtd") == 1
    assert "dtd.tar.gz could not be stored in " in (error := capsys.readouterr().err) and "the disk is full" in error
    assert not (folder / "dtd.tar.gz").exists() and not (folder / "images").exists()


def test_md5_and_a_lone_file(server, tmp_path, monkeypatch):
    labels = b"labels"
    server.files["/imagelabels.mat"] = labels
    monkeypatch.setattr(OxfordFlowers, "sources", (Source(
        "the page", files=("imagelabels.mat",), url=f"{server.address}/imagelabels.mat",
        checksum=checksum(labels, "md5")),))
    assert call(tmp_path, "oxford_flowers") == 1  # it is no MATLAB file
    assert tree(tmp_path / "oxford_flowers") == {"imagelabels.mat": labels}


# ------------------------------------------------------------------ unpacking
@pytest.mark.parametrize("error, code, message", [
    (KeyboardInterrupt, 130, "interrupted: the same command goes on"),
    (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full, dtd.tar.gz could not be unpacked in")])
def test_interrupted_unpacking_leaves_nothing(error, code, message, dtd, tmp_path, monkeypatch, capsys):
    folder, unpacked = tmp_path / "root" / "dtd", []
    copy = tarfile.copyfileobj

    def stop(content, file, *args):
        unpacked.append(file.name)
        if len(unpacked) == 100:
            raise error
        copy(content, file, *args)

    monkeypatch.setattr(tarfile, "copyfileobj", stop)
    assert call(tmp_path / "root", "dtd") == code
    assert message in capsys.readouterr().err and len(unpacked) == 100
    assert list(tree(folder)) == ["dtd.tar.gz"] and not (folder / ".unpacking").exists()


def test_a_killed_unpacking_is_not_taken_for_images(dtd, tmp_path):
    folder = tmp_path / "root" / "dtd"
    shutil.copytree(tmp_path / "made" / "dtd", folder / ".unpacking" / "outer" / "dtd")
    assert call(tmp_path / "root", "dtd", "--check") == 1
    assert call(tmp_path / "root", "dtd") == 0
    assert len(tree(folder / "images")) == 235 and not (folder / ".unpacking").exists()


def test_a_damaged_archive_without_checksum(dtd, server, tmp_path, monkeypatch, capsys):
    server.files["/dtd.tar.gz"] = dtd[:len(dtd) // 2]
    source = Source("the page", folders=("images",), url=f"{server.address}/dtd.tar.gz")
    monkeypatch.setattr(DescribableTextures, "sources", (source,))
    assert call(tmp_path / "root", "dtd") == 1
    assert "dtd.tar.gz is damaged or no zip or tar file" in capsys.readouterr().err
    assert list(tree(tmp_path / "root" / "dtd")) == ["dtd.tar.gz"]


def test_an_archive_in_an_archive_and_what_is_not_in_it(server, tmp_path, monkeypatch, capsys):
    general.make(tmp_path / "made", "dtd", 47)
    inner = tar_of(tmp_path / "made" / "dtd" / "images", "images")
    server.files["/all.zip"] = zip_of({"top/inner.tar.gz": inner, "__MACOSX/top/images/x": b"", "readme": b"text"})
    source = {"page": "the page", "url": f"{server.address}/all.zip", "checksum": checksum(server.files["/all.zip"])}
    monkeypatch.setattr(DescribableTextures, "sources", (Source(folders=("images",), **source),))
    assert call(tmp_path, "dtd") == 1
    assert f"{tmp_path}/dtd/all.zip has no images: unpack it by hand" in capsys.readouterr().err
    monkeypatch.setattr(DescribableTextures, "sources", (
        Source(folders=("images",), inner="top/inner.tar.gz", **source),))
    assert call(tmp_path, "dtd") == 0
    assert tree(tmp_path / "dtd" / "images") == tree(tmp_path / "made" / "dtd" / "images")


def test_nothing_that_exists_is_touched(server, tmp_path, monkeypatch, capsys):
    """Images and one list of the user's stay, the lists that are missing come from the archive."""
    made = general.make(tmp_path / "made", "fgvc_aircraft", 100)
    server.files["/a.tar.gz"] = content = tar_of(made, "fgvc/data")
    monkeypatch.setattr(FGVCAircraft, "sources", (Source(
        "the page", FGVCAircraft.sources[0].folders, FGVCAircraft.sources[0].files, f"{server.address}/a.tar.gz"),))
    folder = tmp_path / "root" / "fgvc_aircraft"
    shutil.copytree(made / "images", folder / "images")
    gone = folder / "images" / "0000001.jpg"
    gone.unlink()
    (folder / "images" / "0000100.jpg").write_bytes(b"mine")
    (folder / "variants.txt").write_text((made / "variants.txt").read_text() + "\n")
    before = tree(folder)
    assert call(tmp_path / "root", "fgvc_aircraft") == 1  # an image is missing in the user's folder, which is left
    after = tree(folder)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {
        "a.tar.gz", *(f"images_variant_{part}.txt" for part in ("train", "val", "test"))}
    assert after["a.tar.gz"] == content
    out = capsys.readouterr().out
    assert "fgvc_aircraft/images/0000001.jpg" in out and "are incomplete, and are left as they are" in out
    shutil.copy(made / "images" / "0000001.jpg", gone)
    assert call(tmp_path / "root", "fgvc_aircraft") == 0
    assert call(tmp_path / "root", "fgvc_aircraft", "--check") == 1
    assert "0000100.jpg is damaged, or no image of a kind that is read" in capsys.readouterr().out


def test_a_file_in_the_way_is_named(dtd, tmp_path, capsys):
    folder = tmp_path / "root" / "dtd"
    folder.mkdir()
    (folder / "images").symlink_to(tmp_path / "nowhere")
    assert call(tmp_path / "root", "dtd") == 1
    assert f"{folder}/images is in the way" in capsys.readouterr().err and (folder / "images").is_symlink()
    (folder / "images").unlink()
    (folder / "images").mkdir()  # an empty folder is not in the way
    assert call(tmp_path / "root", "dtd") == 0


# ------------------------------------------------------------------ the check
GENERAL10 = {  # what a root lacks that has none of a dataset's files
    "caltech101": ["caltech-101/101_ObjectCategories/"], "dtd": ["dtd/images/"], "eurosat": ["eurosat/2750/"],
    "fgvc_aircraft": [f"fgvc_aircraft/{name}" for name in ("images/", "variants.txt", "images_variant_train.txt",
                                                           "images_variant_val.txt", "images_variant_test.txt")],
    "food101": ["food-101/images/"],
    "oxford_flowers": [f"oxford_flowers/{name}" for name in ("jpg/", "imagelabels.mat", "cat_to_name.json")],
    "oxford_pets": [f"oxford_pets/{name}" for name in ("images/", "annotations/trainval.txt", "annotations/test.txt")],
    "stanford_cars": [f"stanford_cars/{name}" for name in (
        "cars_train/", "cars_test/", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat")],
    "sun397": [f"sun397/{name}" for name in ("SUN397/", "ClassName.txt", "Training_01.txt", "Testing_01.txt")],
    "ucf101": [f"ucf101/{name}" for name in (
        "UCF-101-midframes/", "ucfTrainTestlist/classInd.txt", "ucfTrainTestlist/trainlist01.txt",
        "ucfTrainTestlist/testlist01.txt")],
}


def table(text):
    """{dataset: [found, classes, images, [missing ...]]} of the printed table."""
    rows = {}
    for line in text.split("\n\n")[0].splitlines()[2:]:
        cells = line.split()
        if line[0] != " ":
            name, found, classes, images, *missing = cells
            rows[name] = [found, classes, images, missing]
        else:
            rows[name][3] += cells
    return rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A complete root of General-10, to be copied or only read."""
    root = tmp_path_factory.mktemp("whole")
    for config, (_, _, n, *_) in general.GENERAL.items():
        general.make(root, config, n)
    return root


def test_an_empty_root(tmp_path):
    done = run([sys.executable, "-m", "datasets.prepare", "general10", "--root", str(tmp_path), "--check"])
    assert done.returncode == 1 and done.stderr == ""
    assert table(done.stdout) == {name: ["no", "-", "0", missing] for name, missing in GENERAL10.items()}
    assert "cat_to_name.json" in done.stdout and f"to   {tmp_path}/oxford_flowers/cat_to_name.json" in done.stdout
    assert f"{tmp_path}/dtd/split_zhou_DescribableTextures.json" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_complete_root(whole, capsys):
    before = tree(whole)
    assert call(whole, "general10", "--check") == 0
    sizes = {name: sum(row[4]) * row[2] for name, row in general.GENERAL.items()}
    assert table(capsys.readouterr().out) == {
        name: ["yes", str(row[2]), f"{sizes[name]:,}", []] for name, row in general.GENERAL.items()}
    assert tree(whole) == before  # no split is drawn


def test_a_half_filled_root(whole, tmp_path, capsys):
    gone = ["fgvc_aircraft/images/0000001.jpg", "fgvc_aircraft/images/2000201.jpg",
            "oxford_flowers/jpg/image_00007.jpg", "sun397/SUN397/a/abbey/sun_training0.jpg",
            "stanford_cars/devkit/cars_meta.mat", "oxford_pets/annotations/test.txt",
            "ucf101/ucfTrainTestlist/classInd.txt"]
    folders = ["dtd/images/banded/", "dtd/images/class_003/", "sun397/SUN397/a/apse/", "eurosat/2750/River/"]
    root = shutil.copytree(whole, tmp_path / "root")
    for path in gone:
        (root / path).unlink()
    for path in folders:
        shutil.rmtree(root / path)
    (root / "dtd" / "images" / "banded").mkdir()  # empty
    shutil.rmtree(root / "food-101")
    assert call(root, "general10", "--check") == 1
    out = capsys.readouterr().out
    rows = table(out)
    # class folders that no list names can only be counted
    counted = ["dtd/images/class_003/", "eurosat/2750/River/"]
    assert sorted(path for row in rows.values() for path in row[3]) == sorted(
        [*gone, *(path for path in folders if path not in counted), "food-101/images/"])
    assert "EuroSAT has 10 classes, but" in out and "eurosat/2750 has 9 class folders" in out
    assert {name: row[0] for name, row in rows.items()} == {
        name: {"caltech101": "yes", "food101": "no"}.get(name, "partly") for name in general.GENERAL}
    assert rows["sun397"][2] == f"{397 * 7 - 1 - 7:,}" and rows["oxford_flowers"][1:3] == ["102", "509"]


def test_with_split_zhou_the_lists_are_not_needed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(OxfordFlowers, "class_count", 2)
    folder = tmp_path / "oxford_flowers"
    write_split_zhou(folder, "jpg", "OxfordFlowers")
    assert call(tmp_path, "oxford_flowers", "--check") == 0
    (folder / "jpg" / "1" / "val3.jpg").unlink()
    capsys.readouterr()
    assert call(tmp_path, "oxford_flowers", "--check") == 1
    assert table(capsys.readouterr().out) == {
        "oxford_flowers": ["partly", "2", "23", ["oxford_flowers/jpg/1/val3.jpg"]]}


@pytest.mark.parametrize("suite", ["plant6", "rs8", "fashion20"])
def test_other_suites(suite, tmp_path, capsys):
    configs = special.SUITES[suite][1] if suite != "fashion20" else []
    for config in configs:
        special.make(tmp_path, config)
    if not configs:
        special.make_fashion20(tmp_path)
    assert call(tmp_path, suite, "--check") == 0
    rows = table(capsys.readouterr().out)
    assert list(rows) == (configs or ["fashion20"])
    assert sum(int(row[1]) for row in rows.values()) == (special.SUITES[suite][2] if configs else 78)
    assert sum(int(row[2].replace(",", "")) for row in rows.values()) == 10 * sum(int(row[1]) for row in rows.values())
    if suite == "plant6":
        shutil.rmtree(tmp_path / "fruit_vegetable" / "images" / "test")
        (tmp_path / "kaggle_flower_recognition" / "flowers" / "tulip").rename(tmp_path / "tulip")
    elif suite == "rs8":
        shutil.rmtree(tmp_path / "uc-merced")
    else:
        for path in ("images/3/2", "images/7/0"):
            shutil.rmtree(tmp_path / "fashion20" / path)
    assert call(tmp_path, suite, "--check") == 1
    out = capsys.readouterr().out
    assert [path for row in table(out).values() for path in row[3]] == {
        "plant6": ["fruit_vegetable/images/test/"], "rs8": ["uc-merced/UCMerced_LandUse/Images/"],
        "fashion20": ["fashion20/images/3/2/", "fashion20/images/7/0/"]}[suite]
    assert ("KaggleFlower has 5 classes, but" in out) == (suite == "plant6")


@pytest.mark.usefixtures("few_classes")
def test_imagenet_and_shifted_sets(tmp_path, capsys):
    general.make_imagenet(tmp_path, 40)
    general.make_shifted(tmp_path, "imagenet_r", folders=general.RENDITIONS)
    assert call(tmp_path, "imagenet", "imagenet_r", "--check") == 0
    assert table(capsys.readouterr().out) == {"imagenet": ["yes", "40", "240", []],
                                              "imagenet_r": ["yes", "8", "8", []]}
    for path in ("train/n01440764", "val/n01440766"):
        shutil.rmtree(tmp_path / "imagenet" / "images" / path)
    (tmp_path / "imagenet-rendition" / "classnames.txt").unlink()
    assert call(tmp_path, "imagenet", "imagenet_r", "--check") == 1
    out = capsys.readouterr().out
    assert table(out)["imagenet"][3] == ["imagenet/images/train/n01440764/", "imagenet/images/val/n01440766/"]
    assert table(out)["imagenet_r"] == ["partly", "-", "8", ["imagenet-rendition/classnames.txt"]]


@pytest.mark.parametrize("config", [*general.GENERAL, *special.ONE_TASK])
def test_sources_are_what_the_classes_read(config, tmp_path, capsys):
    """A tree with nothing but the declared paths is complete, so nothing else is needed."""
    if config in general.GENERAL:
        general.make(tmp_path / "made", config, general.GENERAL[config][2])
    else:
        special.make(tmp_path / "made", config)
    cls = prepare.read_configs()[config]
    for source in cls.sources:
        for path in source.paths:
            target = tmp_path / "root" / cls.dataset_dir / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "made" / cls.dataset_dir / path).rename(target)
    assert call(tmp_path / "root", config, "--check") == 0


# ------------------------------------------------------------------ declarations and the command line
def test_every_public_dataset_is_declared():
    configs = prepare.read_configs()
    del configs["folder_tasks"]  # a user's own
    assert set(prepare.members_of(configs, configs)) == {
        *general.GENERAL, *special.ONE_TASK, *general.SHIFTED, "imagenet", "fashion20"}
    for name, cls in prepare.members_of(configs, configs).items():
        assert cls.class_count > 0, name
        for source in cls.sources:
            assert source.paths and source.page and (source.url or source.note), name
            algorithm, _, digits = source.checksum.partition(":")
            assert not source.checksum or len(digits) == 2 * hashlib.new(algorithm).digest_size, name
    assert "outfits16" not in configs


@pytest.mark.parametrize("arguments, message", [
    (["zebra", "--root", "."], "no files are known of a dataset 'zebra': choose from aid, caltech101"),
    (["outfits16", "--root", "."], "no files are known of a dataset 'outfits16'"),
    (["dtd", "--root", "/nonexistent/data"], "the folder /nonexistent/data does not exist: make it, or check --root")])
def test_wrong_arguments(arguments, message, capsys):
    assert prepare.main(arguments) == 2
    out, error = capsys.readouterr()
    assert error.startswith(message) and error.count("\n") == 1 and out == ""


def test_root_is_needed(capsys):
    with pytest.raises(SystemExit, match="2"):
        prepare.main(["dtd"])
    assert "the following arguments are required: --root" in capsys.readouterr().err
