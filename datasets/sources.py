"""The sources of a dataset's files, declared in its class and read by `datasets.prepare`."""

import os
import os.path as osp
from dataclasses import dataclass

COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"  # its links go to Google Drive


@dataclass(frozen=True)
class Source:
    """A file or archive, and the paths in the dataset's folder that the dataset's class reads of it.

    In an archive these may stand below other folders: `images` is the topmost path that ends with `images`.

    Attributes:
        page: address of the page, for a person, that describes or offers it.
        folders: folders of images.
        files: official lists and other files.
        url: address of the file, for a program; "" if a person has to fetch it.
        checksum: "md5:..." or "sha256:...", as published; "" if none is.
        archive: name of the archive; by default the last part of `url`. An archive of that name in the dataset's
            folder is used, whoever put it there.
        inner: path of a further archive in the archive, which holds the files.
        note: tells a person what to fetch on `page`, and what to do with it.
    """

    page: str
    folders: tuple = ()
    files: tuple = ()
    url: str = ""
    checksum: str = ""
    archive: str = ""
    inner: str = ""
    note: str = ""

    @property
    def paths(self):
        return self.folders + self.files

    @property
    def name(self):
        """Name of the file that is fetched, or ""."""
        return self.archive or osp.basename(self.url)

    def is_there(self, path, folder):
        """Return whether the dataset's `folder` has `path`: a file, or a folder that is not empty."""
        path, is_folder = osp.join(folder, path), path in self.folders
        return osp.isdir(path) and any(os.scandir(path)) if is_folder else osp.isfile(path)
