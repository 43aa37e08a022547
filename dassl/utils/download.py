"""Files from the network, for `DatasetBase.download_data`."""

import os

import pooch

from .tools import mkdir_if_missing


def download_url(url, dst):
    """Download ``url`` to the file ``dst``, which appears when it is complete.

    Raises:
        ValueError: the download failed.
    """
    mkdir_if_missing(os.path.dirname(dst))
    part = f"{dst}.part"
    try:
        pooch.HTTPDownloader(progressbar=True, timeout=(5, 60))(url, part, None)
        os.replace(part, dst)
    except OSError as error:  # those of requests are such, too
        raise ValueError(f"Could not download {url} to {dst} ({error}): try again, or fetch it by hand") from error
    finally:
        if os.path.lexists(part):
            os.remove(part)
