"""The images of a data set: of the labels and of each split's queries, in memory or in the files of its directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from xmc.data.images.files import content_of, digest_of, dimension_of, read_images, write_images
from xmc.data.images.ragged import RaggedImages
from xmc.errors import DataError

__all__ = ["ImageCollection"]


class ImageCollection:
    """Image embeddings by name: "labels", or that of a split. Files images-NAME.arrow are read on first use."""

    def __init__(
        self, directory: Path | None, images: Mapping[str, RaggedImages], where: str, verified: Callable[[str], Path]
    ) -> None:
        """images: those in memory. where: what errors call the data set. verified: a file of it, see Listing.require."""
        self.directory, self.where, self._verified = directory, where, verified
        self._images: dict[str, RaggedImages | None] = dict(images)

    def __getstate__(self) -> dict[str, object]:
        """Pickled with what was read, and with a directory that other working directories find."""
        return {**vars(self), "directory": self.directory and self.directory.absolute()}

    def __getitem__(self, name: str) -> RaggedImages | None:
        """The images of a name; None where there are none."""
        if name not in self._images:
            file = self._file(name)
            self._images[name] = None if file is None else read_images(self._verified(file.name))
        return self._images[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (self._images.get(name) is not None or self._file(name) is not None)

    def check_dimension(self, name: str, dimension: int, others: tuple[str, ...]) -> None:
        """Raise DataError where images of `others`, read or not, have embeddings of another length."""
        for other in others:
            images, file = self._images.get(other), self._file(other)
            numbers = (
                images.dimension
                if images is not None
                else None
                if file is None
                else dimension_of(self._verified(file.name))
            )
            if other != name and numbers not in (None, dimension):
                raise DataError(
                    f"{self.where}: images of {name} have embeddings of {dimension} numbers, those of {other} {numbers}; "
                    f"make all of them with one model. To change it, remove images-{other}.arrow first, and run "
                    f"`xmc data seal` on the directory."
                )

    def replace(self, name: str, images: RaggedImages, file: Path, named: Path) -> None:
        """Write the images of a name into a file that takes the place of the one that they have, `named`."""
        write_images(images, file, named)
        self._images.pop(name, None)

    def write(self, names: tuple[str, ...], directory: Path) -> None:
        """Write all images into a directory; files of names without images are removed from it."""
        for name in names:
            images, file = self[name], directory / f"images-{name}.arrow"
            if images is None:
                file.unlink(missing_ok=True)
            else:
                write_images(images, file)

    def contents(self, names: tuple[str, ...]) -> dict[str, str]:
        """The SHA-256 of each name's images, as its file says it, or of images in memory."""
        contents = {}
        for name in names:
            file, images = self._file(name), self._images.get(name)
            if file is not None:
                contents[name] = content_of(self._verified(file.name))
            elif images is not None:
                contents[name] = digest_of(images)
        return contents

    def _file(self, name: str) -> Path | None:
        file = None if self.directory is None else self.directory / f"images-{name}.arrow"
        return file if file is not None and file.exists() else None
