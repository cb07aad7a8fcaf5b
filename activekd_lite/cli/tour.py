"""`activekd-lite tour`."""

from activekd_lite import tour


def command(*, out: str = "tour.html", cache: str = ".cache") -> None:
    """Write a page that shows the method in five scenes; it needs no kernel and no network.

    Parameters
    ----------
    out
        File of the page.
    cache
        Folder of the encoded images.
    """
    path = tour.write(out, cache_root=cache)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")
