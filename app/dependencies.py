"""What routes ask for: the settings, the serving state and its catalogue, kept on the application."""

from typing import Annotated

from fastapi import Depends, Request

from app.renditions import Renditions
from app.serving import Serving
from app.settings import Settings
from app.species_directory import SpeciesDirectory
from app.uploads import UploadBudget
from models.catalogue import Catalogue


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


SettingsDependency = Annotated[Settings, Depends(get_settings)]
ServingDependency = Annotated[Serving, Depends(get_serving)]
UploadBudgetDependency = Annotated[UploadBudget, Depends(get_upload_budget)]
CatalogueDependency = Annotated[Catalogue, Depends(get_catalogue)]
DirectoryDependency = Annotated[SpeciesDirectory, Depends(get_directory)]
RenditionsDependency = Annotated[Renditions, Depends(get_renditions)]
