"""What routes ask for: the settings, the serving state and its catalogue, kept on the application."""

from typing import Annotated

from fastapi import Depends, Request

from app.access import Access, Scope, check_access
from app.curation_access import CurationAccess, check_curation
from app.event_streams import EventStreams
from app.renditions import Renditions
from app.serving import Serving
from app.settings import Settings, home_of
from app.species_directory import SpeciesDirectory
from app.uploads import UploadBudget
from models.catalogue import Catalogue
from models.home import Home
from models.jobs import JobQueue


def get_settings(request: Request) -> Settings:
    """Settings of this service."""
    settings: Settings = request.app.state.settings
    return settings


def get_serving(request: Request) -> Serving:
    """What the service holds now."""
    serving: Serving = request.app.state.serving
    return serving


def get_upload_budget(request: Request) -> UploadBudget:
    """The memory that all uploads share."""
    budget: UploadBudget = request.app.state.upload_budget
    return budget


def get_catalogue(serving: Annotated[Serving, Depends(get_serving)]) -> Catalogue:
    """The catalogue. Raises `NotReady`."""
    return serving.collection.catalogue


def get_directory(serving: Annotated[Serving, Depends(get_serving)]) -> SpeciesDirectory:
    """The species with their counts. Raises `NotReady`."""
    return serving.collection.directory


def get_renditions(serving: Annotated[Serving, Depends(get_serving)]) -> Renditions:
    """Thumbnails of the sheets. Raises `NotReady`."""
    return serving.collection.renditions


def get_home(settings: Annotated[Settings, Depends(get_settings)]) -> Home:
    """The home that is served."""
    return home_of(settings)


def get_jobs(request: Request) -> JobQueue:
    """The queue of long work."""
    jobs: JobQueue = request.app.state.jobs
    return jobs


def get_event_streams(request: Request) -> EventStreams:
    """Room for clients that follow jobs."""
    streams: EventStreams = request.app.state.event_streams
    return streams


def get_curation_access(request: Request, settings: Annotated[Settings, Depends(get_settings)]) -> CurationAccess:
    """Leave to change what is served. Raises `CurationOff` and `ForeignPage`."""
    return check_curation(settings, request.headers)


async def may_identify(request: Request) -> Access:
    """Leave to identify one plant, charged to the day of the key that the request shows."""
    return await check_access(request, Scope.IDENTIFY, identifications=1)


SettingsDependency = Annotated[Settings, Depends(get_settings)]
ServingDependency = Annotated[Serving, Depends(get_serving)]
UploadBudgetDependency = Annotated[UploadBudget, Depends(get_upload_budget)]
CatalogueDependency = Annotated[Catalogue, Depends(get_catalogue)]
DirectoryDependency = Annotated[SpeciesDirectory, Depends(get_directory)]
RenditionsDependency = Annotated[Renditions, Depends(get_renditions)]
IdentifyDependency = Annotated[Access, Depends(may_identify)]
CuratorDependency = Annotated[CurationAccess, Depends(get_curation_access)]
HomeDependency = Annotated[Home, Depends(get_home)]
JobsDependency = Annotated[JobQueue, Depends(get_jobs)]
StreamsDependency = Annotated[EventStreams, Depends(get_event_streams)]
