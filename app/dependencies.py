"""What routes ask for: the settings, the serving state and its catalogue, kept on the application."""

from typing import Annotated

from fastapi import Depends, Request

from app.access import Access, Scope, check_access, check_reading
from app.batch_door import BatchDoor
from app.curation_access import CurationAccess, check_curation
from app.event_streams import EventStreams
from app.explanations import Explainer
from app.metrics_state import StateFigures
from app.readiness import ReadinessProbe
from app.remote_images import RemoteImages
from app.renditions import Renditions
from app.serving import Serving
from app.settings import Settings, home_of
from app.species_directory import SpeciesDirectory
from app.uploads import UploadBudget
from models.catalogue import Catalogue
from models.home import Home
from models.jobs import JobQueue


async def get_settings(request: Request) -> Settings:
    """Settings of this service."""
    settings: Settings = request.app.state.settings
    return settings


async def get_serving(request: Request) -> Serving:
    """What the service holds now."""
    serving: Serving = request.app.state.serving
    return serving


async def get_upload_budget(request: Request) -> UploadBudget:
    """The memory that all uploads share."""
    budget: UploadBudget = request.app.state.upload_budget
    return budget


async def get_catalogue(serving: Annotated[Serving, Depends(get_serving)]) -> Catalogue:
    """The catalogue. Raises `NotReady`."""
    return serving.collection.catalogue


async def get_directory(serving: Annotated[Serving, Depends(get_serving)]) -> SpeciesDirectory:
    """The species with their counts. Raises `NotReady`."""
    return serving.collection.directory


async def get_renditions(serving: Annotated[Serving, Depends(get_serving)]) -> Renditions:
    """Thumbnails of the sheets. Raises `NotReady`."""
    return serving.collection.renditions


async def get_home(settings: Annotated[Settings, Depends(get_settings)]) -> Home:
    """The home that is served."""
    return home_of(settings)


async def get_jobs(request: Request) -> JobQueue:
    """The queue of long work."""
    jobs: JobQueue = request.app.state.jobs
    return jobs


async def get_event_streams(request: Request) -> EventStreams:
    """Room for clients that follow jobs."""
    streams: EventStreams = request.app.state.event_streams
    return streams


async def get_curation_access(request: Request) -> CurationAccess:
    """Leave to change what is served. Raises `CurationOff`, `ForeignPage` and what `check_access` raises."""
    return await check_curation(request)


async def may_identify(request: Request) -> Access:
    """Leave to identify one plant, charged to the day of the key that the request shows."""
    return await check_access(request, Scope.IDENTIFY, identifications=1)


async def may_read(request: Request) -> Access:
    """Leave to see species, sheets and their images: for everybody, unless the collection is not public."""
    return await check_reading(request)


async def may_look_behind(request: Request) -> Access:
    """Leave to see what curators do, which names them: for everybody where no keys are in force."""
    return await check_access(request, Scope.CURATE)


async def get_probe(request: Request) -> ReadinessProbe:
    """What looks at whether the service can identify plants."""
    probe: ReadinessProbe = request.app.state.probe
    return probe


async def get_state_figures(request: Request) -> StateFigures:
    """What the service and its home are like now."""
    figures: StateFigures = request.app.state.state_figures
    return figures


async def get_remote_images(request: Request) -> RemoteImages:
    """What fetches images from addresses."""
    images: RemoteImages = request.app.state.remote_images
    return images


async def may_ask(request: Request) -> Access:
    """Leave to identify, charged by the route once it knows how much."""
    return await check_access(request, Scope.IDENTIFY)


async def get_explainer(request: Request) -> Explainer:
    """What makes heat maps and keeps them."""
    explainer: Explainer = request.app.state.explainer
    return explainer


async def get_batch_door(request: Request) -> BatchDoor:
    """What lets batches in."""
    door: BatchDoor = request.app.state.batch_door
    return door


SettingsDependency = Annotated[Settings, Depends(get_settings)]
ServingDependency = Annotated[Serving, Depends(get_serving)]
UploadBudgetDependency = Annotated[UploadBudget, Depends(get_upload_budget)]
CatalogueDependency = Annotated[Catalogue, Depends(get_catalogue)]
DirectoryDependency = Annotated[SpeciesDirectory, Depends(get_directory)]
RenditionsDependency = Annotated[Renditions, Depends(get_renditions)]
IdentifyDependency = Annotated[Access, Depends(may_identify)]
AskDependency = Annotated[Access, Depends(may_ask)]
BatchDoorDependency = Annotated[BatchDoor, Depends(get_batch_door)]
CuratorDependency = Annotated[CurationAccess, Depends(get_curation_access)]
ExplainerDependency = Annotated[Explainer, Depends(get_explainer)]
HomeDependency = Annotated[Home, Depends(get_home)]
JobsDependency = Annotated[JobQueue, Depends(get_jobs)]
ProbeDependency = Annotated[ReadinessProbe, Depends(get_probe)]
RemoteImagesDependency = Annotated[RemoteImages, Depends(get_remote_images)]
StateFiguresDependency = Annotated[StateFigures, Depends(get_state_figures)]
StreamsDependency = Annotated[EventStreams, Depends(get_event_streams)]
