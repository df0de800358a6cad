import pytest

from models.scientific_name import ScientificName, split_scientific_name

NAMES = {
    # authors
    "Costus arabicus L.": ("Costus arabicus", "L."),
    "Costus arabicus": ("Costus arabicus", ""),
    "Pleroma semidecandrum (Schrank & Mart. ex DC.) Triana": (
        "Pleroma semidecandrum",
        "(Schrank & Mart. ex DC.) Triana",
    ),
    "Hibiscus acetosella Welw. ex Hiern": ("Hibiscus acetosella", "Welw. ex Hiern"),
    "Costus dubius de Wild.": ("Costus dubius", "de Wild."),
    "Euphorbia de-candollei van der Werff": ("Euphorbia de-candollei", "van der Werff"),
    "Costus d'urvillei d'Urv.": ("Costus d'urvillei", "d'Urv."),
    "Acalypha hispida Burm.f.": ("Acalypha hispida", "Burm.f."),
    "Elodea canadensis Michx. f.": ("Elodea canadensis", "Michx. f."),
    "Fucus vesiculosus L., 1753": ("Fucus vesiculosus", "L., 1753"),
    "Polygala vulgaris [auct. non L.]": ("Polygala vulgaris", "[auct. non L.]"),
    "Malvaviscus penduliflorus Moc. & Sessé ex DC.": ("Malvaviscus penduliflorus", "Moc. & Sessé ex DC."),
    # letters
    "Isoëtes echinospora Durieu": ("Isoëtes echinospora", "Durieu"),
    "Capsella bursa-pastoris (L.) Medik.": ("Capsella bursa-pastoris", "(L.) Medik."),
    "Carex œderi Retz.": ("Carex œderi", "Retz."),
    # hybrids
    "Abies × borisii-regis Mattf.": ("Abies × borisii-regis", "Mattf."),
    "Abies ×borisii-regis Mattf.": ("Abies × borisii-regis", "Mattf."),
    "Mentha x piperita L.": ("Mentha × piperita", "L."),
    "× Cupressocyparis leylandii (A.B.Jacks. & Dallim.) Dallim.": (
        "× Cupressocyparis leylandii",
        "(A.B.Jacks. & Dallim.) Dallim.",
    ),
    "×Cuprocyparis leylandii": ("× Cuprocyparis leylandii", ""),
    "Salix alba L. × Salix fragilis L.": ("Salix alba × Salix fragilis", ""),
    "Salix alba × fragilis": ("Salix alba × fragilis", ""),
    "+ Crataegomespilus dardarii Simon-Louis": ("+ Crataegomespilus dardarii", "Simon-Louis"),
    # below the species
    "Viola alba Besser subsp. dehnhardtii (Ten.) W.Becker": ("Viola alba subsp. dehnhardtii", "(Ten.) W.Becker"),
    "Acer rubrum L. var. rubrum": ("Acer rubrum var. rubrum", ""),
    "Rosa canina L. f. alba Author": ("Rosa canina f. alba", "Author"),
    "Mentha x piperita L. nothosubsp. piperita": ("Mentha × piperita nothosubsp. piperita", ""),
    "Brassica oleracea L. convar. capitata (L.) Alef. var. alba DC.": (
        "Brassica oleracea convar. capitata var. alba",
        "DC.",
    ),
    "Acer rubrum trilobum K.Koch": ("Acer rubrum trilobum", "K.Koch"),
    "Malus domestica 'Golden Delicious'": ("Malus domestica 'Golden Delicious'", ""),
    "Agave americana L. 'Marginata'": ("Agave americana 'Marginata'", "L."),
    # above the species
    "Costus L.": ("Costus", "L."),
    "Lindera L. f.": ("Lindera", "L. f."),
    "Taraxacum sect. Taraxacum F.H.Wigg.": ("Taraxacum sect. Taraxacum", "F.H.Wigg."),
    "Rosa L. sect. Caninae (DC.) Ser.": ("Rosa sect. Caninae", "(DC.) Ser."),
    "Violaceae Batsch": ("Violaceae", "Batsch"),
    # not sure
    "Costus cf. arabicus L.": ("Costus cf. arabicus", "L."),
    "Rubus fruticosus L. agg.": ("Rubus fruticosus agg.", "L."),
    "Rubus sp.": ("Rubus sp.", ""),
    "Iris sp. nov.": ("Iris sp. nov.", ""),
    # invented
    "Zelmia2 alba": ("Zelmia2 alba", ""),
    "  Costus \t arabicus  L. ": ("Costus arabicus", "L."),
}


@pytest.mark.parametrize("text", NAMES)
def test_a_name_is_split_from_its_authorship(text: str) -> None:
    found = split_scientific_name(text)
    assert (found.without_author, found.authorship) == NAMES[text]


@pytest.mark.parametrize("text", ["species_12", "tomato red", "1234", "×", "", "VIOLA ALBA Besser"])
def test_what_does_not_begin_with_a_genus_is_all_name(text: str) -> None:
    assert split_scientific_name(text) == ScientificName(text, "", None)


@pytest.mark.parametrize(
    ("text", "genus"),
    [("× Cuprocyparis leylandii", "Cuprocyparis"), ("Costus arabicus L.", "Costus"), ("Costus", "Costus")],
)
def test_the_genus_is_the_first_word_without_a_hybrid_sign(text: str, genus: str) -> None:
    assert split_scientific_name(text).genus == genus


@pytest.mark.parametrize("text", ["Rosa ×", "Rosa subsp.", "Rosa 'Peace", "Rosa ( L.", "Rosa canina f."])
def test_nothing_is_lost_of_a_name_that_ends_early(text: str) -> None:
    found = split_scientific_name(text)
    assert f"{found.without_author} {found.authorship}" == text
