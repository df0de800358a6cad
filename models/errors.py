"""Every error that voucher raises on purpose.

    VoucherError
    ├── InvalidImage            the image cannot be used
    │   ├── UnreadableImage     not an image, truncated, or of a format that is not accepted
    │   └── ImageTooLarge       too many bytes or pixels
    ├── InvalidConfig           a setting, run config or option is wrong
    ├── InvalidDataset          the folder or manifest to import is wrong
    ├── InsufficientData        too few images, species or photos for what was asked
    ├── InvalidCheckpoint       a weights file does not fit the network
    ├── UnknownSpecies          no such species in the catalogue or index
    ├── UnknownSheet            no such sheet in the catalogue
    ├── InvalidCandidateFilter  a checklist or taxa that no answer can be chosen from
    ├── UnknownBatch            no such batch of photos
    ├── InvalidBatch            what was sent as a batch cannot be one
    ├── InvalidSheetDetails     what a curator says about a sheet or species is not usable
    ├── CurationConflict        a curator's change contradicts the catalogue
    │   ├── SheetConflict       the image or its specimen is something else already
    │   └── SpeciesConflict     the identifier or the name is taken
    ├── UnknownJob              no such job in the queue
    ├── UnknownBundle           no such version of the index
    ├── UnknownKey              no such API key
    ├── JobQueueError           the queue of jobs cannot be read or written
    ├── JobCancelled            somebody cancelled the work that is being done
    ├── CatalogueError          the catalogue cannot be read or written
    │   ├── CatalogueBusy       another change of it takes long; try again later
    │   └── StorageReadOnly     the home, or its database, may not be written to
    ├── StorageFull             the disk has no room for what was to be written
    ├── DeviceUnavailable       the device that was asked for is not there
    ├── BundleError             an artifact cannot be served
    │   ├── BundleMissing       nothing has been built or activated yet
    │   ├── BundleCorrupt       a file is missing, changed or of another version
    │   └── EmbeddingSpaceMismatch   vectors of two networks would be compared
    └── ServiceOverloaded       the queue is full; try again later

A message says what was expected, what was found and how to mend it. It never holds image bytes,
a location or a client's file name.
"""


class VoucherError(Exception):
    """Base of all errors that are raised on purpose."""


class InvalidImage(VoucherError):
    """The image cannot be used."""


class UnreadableImage(InvalidImage):
    """Not an image, truncated, or of a format that is not accepted."""


class ImageTooLarge(InvalidImage):
    """Too many bytes or too many pixels."""


class InvalidConfig(VoucherError):
    """A setting, run config or command line option is wrong."""


class InvalidDataset(VoucherError):
    """The folder or manifest to import is wrong as a whole; nothing was imported."""


class InsufficientData(VoucherError):
    """There are too few images, species or photos for what was asked."""


class InvalidCheckpoint(VoucherError):
    """A weights file does not fit the network it is meant for."""


class UnknownSpecies(VoucherError):
    """No such species in the catalogue or in the index."""


class UnknownSheet(VoucherError):
    """No such sheet in the catalogue."""


class InvalidCandidateFilter(VoucherError):
    """A checklist or taxa name what the index does not hold, or leave nothing to choose from."""


class UnknownBatch(VoucherError):
    """No such batch of photos, or no longer."""


class InvalidBatch(VoucherError):
    """The archive or the photos that were sent cannot be taken as a batch; nothing was stored."""


class UnknownBundle(VoucherError):
    """No such version of the index."""


class UnknownJob(VoucherError):
    """No such job in the queue."""


class UnknownKey(VoucherError):
    """No such API key."""


class JobQueueError(VoucherError):
    """The queue of jobs cannot be read or written."""


class JobCancelled(VoucherError):
    """Somebody cancelled the work that is being done."""


class InvalidSheetDetails(VoucherError):
    """What a curator says about a sheet or a species is missing, too long or not text."""


class CurationConflict(VoucherError):
    """A curator's change contradicts what the catalogue holds; nothing was changed."""


class SheetConflict(CurationConflict):
    """The image or its specimen is in the catalogue as something else."""


class SpeciesConflict(CurationConflict):
    """The identifier or the name of a new species is taken by another one."""


class CatalogueError(VoucherError):
    """The catalogue cannot be read or written."""


class CatalogueBusy(CatalogueError):
    """Another change of the catalogue has taken longer than one waits for it."""


class StorageFull(VoucherError):
    """The disk has no room for what was to be written; nothing was changed."""


class StorageReadOnly(CatalogueError):
    """Nothing can be written to the home, as on a disk that is mounted for reading; nothing was changed."""


class DeviceUnavailable(VoucherError):
    """The device that was asked for is not on this machine."""


class BundleError(VoucherError):
    """An artifact cannot be served."""


class BundleMissing(BundleError):
    """Nothing has been built or activated yet."""


class BundleCorrupt(BundleError):
    """A file of an artifact is missing, changed or of a version that is not understood."""


class EmbeddingSpaceMismatch(BundleError):
    """Vectors of two different networks or preprocessings would have been compared."""


class ServiceOverloaded(VoucherError):
    """More work is waiting than may wait."""
