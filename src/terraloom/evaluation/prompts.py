"""What is asked of a text model for each class of the two sets with classes: words as a user types them.

Few of them are captions of the training sets; the report counts those that are apart from those that are not.
"""

from __future__ import annotations

from collections.abc import Mapping

Prompts = Mapping[str, tuple[str, str, str, str]]

EUROSAT: Prompts = {
    "AnnualCrop": ("fields of annual crops", "ploughed and green crop fields", "wheat fields", "large arable fields"),
    "Forest": ("dense forest", "a wooded area", "forest canopy from above", "thick woodland"),
    "HerbaceousVegetation": (
        "herbaceous vegetation", "wild grassland with shrubs", "a natural meadow with bushes", "scrubby grass",
    ),
    "Highway": ("highway", "a motorway in the countryside", "a big road with traffic", "a highway through fields"),
    "Industrial": (
        "industrial area", "factories with large roofs", "warehouses of an industrial zone", "an industrial park",
    ),
    "Pasture": ("pasture", "pasture land for cattle", "green grazing land", "a meadow where cows graze"),
    "PermanentCrop": ("permanent crops", "an orchard", "a vineyard", "rows of olive trees"),
    "Residential": ("residential area", "a suburb with houses", "a village of small houses", "a housing estate"),
    "River": ("river", "a river winding through the landscape", "a wide river with trees on its banks", "a river bend"),
    "SeaLake": ("open sea", "a big lake", "deep blue water", "the surface of a lake"),
}  # fmt: skip

UCMERCED: Prompts = {
    "agricultural": ("agricultural land", "crop rows in a field", "a ploughed field", "a farm field seen from a plane"),
    "airplane": ("airplane", "a plane parked at an airport", "an airliner on the apron", "two aircraft at the gate"),
    "baseballdiamond": (
        "baseball diamond", "a baseball field with its infield", "a baseball pitch in a park", "ballpark from above",
    ),
    "beach": ("beach", "a sandy beach with waves", "the seashore with sand", "surf breaking on a beach"),
    "buildings": ("buildings", "office buildings downtown", "big flat roofed buildings", "a block of large buildings"),
    "chaparral": ("chaparral", "dry bushes on bare ground", "desert scrub", "scattered shrubs"),
    "denseresidential": (
        "dense residential area", "tightly packed houses", "a crowded neighbourhood", "rows of close houses",
    ),
    "forest": ("forest", "a dense forest of trees", "tree crowns from above", "woods"),
    "freeway": ("freeway", "a freeway with several lanes", "cars on a freeway", "a straight motorway"),
    "golfcourse": ("golf course", "a fairway with sand bunkers", "golf greens and trees", "a golf links"),
    "harbor": ("harbor", "boats docked in a harbor", "a marina full of boats", "yachts at their berths"),
    "intersection": ("intersection", "a road intersection", "two streets crossing", "a crossroads in town"),
    "mediumresidential": (
        "medium residential area", "a suburb of medium density", "suburban homes with yards",
        "family houses along a street",
    ),
    "mobilehomepark": ("mobile home park", "a park of mobile homes", "trailers side by side", "rows of trailer homes"),
    "overpass": ("overpass", "a road passing over a freeway", "a highway overpass", "a bridge over a motorway"),
    "parkinglot": ("parking lot", "a car park full of cars", "parked cars in rows", "a busy parking lot"),
    "river": ("river", "a river with trees on both banks", "a brown river in the woods", "a small river"),
    "runway": ("runway", "an airport runway with markings", "the landing strip of an airport", "a long runway"),
    "sparseresidential": (
        "sparse residential area", "one house among trees", "a lonely house on a large lot", "scattered rural houses",
    ),
    "storagetanks": ("storage tanks", "round oil storage tanks", "white tanks of a refinery", "fuel tanks"),
    "tenniscourt": ("tennis court", "two tennis courts", "a tennis court beside trees", "courts for playing tennis"),
}  # fmt: skip
