"""Where the files of a dataset come from: data beside its class, read by `prepare.py`."""

import os
import os.path as osp
from dataclasses import dataclass

COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"  # its links go to Google Drive


@dataclass(frozen=True)
class Source:
    """A file or archive and what the dataset's class reads of it, as paths in the dataset's folder.

    In an archive these may stand below other folders: `images` is the topmost path that ends so.

    Attributes:
        page: address for a person: what describes or offers it.
        folders: folders of images.
        files: official lists and other files.
        url: address for a program; "" if a person has to fetch it.
        checksum: "md5:..." or "sha256:...", as published; "" if none is.
        archive: name of the archive; by default the last part of `url`. An archive of that name in the dataset's
            folder is used, whoever put it there.
        inner: path of the archive in the archive that holds the rest.
        note: what a person has to fetch on `page`, or to do with it.
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
        """Whether the dataset's `folder` has `path`: a file, or a folder that is not empty."""
        path, is_folder = osp.join(folder, path), path in self.folders
        return osp.isdir(path) and any(os.scandir(path)) if is_folder else osp.isfile(path)
