"""120 cities with their countries and continents, written by hand, in the couples that exchange objects.

The two cities of a line lie in different countries and on different continents. Each is the other's false object, so
the assignment of false objects is a derangement, and each object is true and false equally often, line by line. No
city stands beside a country or continent that has a well-known namesake of it.
"""

from __future__ import annotations

from dataclasses import dataclass

US, UK = "the United States", "the United Kingdom"
NORTH, SOUTH = "North America", "South America"


@dataclass(frozen=True)
class City:
    """A city, the country it is in, and the continent of both."""

    name: str
    country: str
    continent: str

    @property
    def slug(self) -> str:
        """Name in lower case, blanks as hyphens: for names of items and clusters."""
        return self.name.lower().replace(" ", "-")


ROWS: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("Paris", "France", "Europe", "Tokyo", "Japan", "Asia"),
    ("Lyon", "France", "Europe", "Mumbai", "India", "Asia"),
    ("Marseille", "France", "Europe", "Cairo", "Egypt", "Africa"),
    ("Berlin", "Germany", "Europe", "Nairobi", "Kenya", "Africa"),
    ("Munich", "Germany", "Europe", "Seoul", "South Korea", "Asia"),
    ("Hamburg", "Germany", "Europe", "Rio de Janeiro", "Brazil", SOUTH),
    ("Madrid", "Spain", "Europe", "Beijing", "China", "Asia"),
    ("Seville", "Spain", "Europe", "Kampala", "Uganda", "Africa"),
    ("Rome", "Italy", "Europe", "Bangkok", "Thailand", "Asia"),
    ("Milan", "Italy", "Europe", "Johannesburg", "South Africa", "Africa"),
    ("Turin", "Italy", "Europe", "Recife", "Brazil", SOUTH),
    ("Lisbon", "Portugal", "Europe", "Hanoi", "Vietnam", "Asia"),
    ("Porto", "Portugal", "Europe", "Accra", "Ghana", "Africa"),
    ("Warsaw", "Poland", "Europe", "Lima", "Peru", SOUTH),
    ("Krakow", "Poland", "Europe", "Karachi", "Pakistan", "Asia"),
    ("Vienna", "Austria", "Europe", "Jakarta", "Indonesia", "Asia"),
    ("Stockholm", "Sweden", "Europe", "Casablanca", "Morocco", "Africa"),
    ("Gothenburg", "Sweden", "Europe", "Shanghai", "China", "Asia"),
    ("Oslo", "Norway", "Europe", "Dakar", "Senegal", "Africa"),
    ("Helsinki", "Finland", "Europe", "Chennai", "India", "Asia"),
    ("Copenhagen", "Denmark", "Europe", "Quito", "Ecuador", SOUTH),
    ("Athens", "Greece", "Europe", "Tehran", "Iran", "Asia"),
    ("Budapest", "Hungary", "Europe", "Sydney", "Australia", "Oceania"),
    ("Bucharest", "Romania", "Europe", "Osaka", "Japan", "Asia"),
    ("Sofia", "Bulgaria", "Europe", "Fortaleza", "Brazil", SOUTH),
    ("Dublin", "Ireland", "Europe", "Manila", "the Philippines", "Asia"),
    ("Brussels", "Belgium", "Europe", "Riyadh", "Saudi Arabia", "Asia"),
    ("Zurich", "Switzerland", "Europe", "Caracas", "Venezuela", SOUTH),
    ("London", UK, "Europe", "Baghdad", "Iraq", "Asia"),
    ("Manchester", UK, "Europe", "Luxor", "Egypt", "Africa"),
    ("Amsterdam", "the Netherlands", "Europe", "Kuala Lumpur", "Malaysia", "Asia"),
    ("Rotterdam", "the Netherlands", "Europe", "Cusco", "Peru", SOUTH),
    ("Kyoto", "Japan", "Asia", "Montreal", "Canada", NORTH),
    ("Guangzhou", "China", "Asia", "Chicago", US, NORTH),
    ("Delhi", "India", "Asia", "Buenos Aires", "Argentina", SOUTH),
    ("Busan", "South Korea", "Asia", "Monterrey", "Mexico", NORTH),
    ("Surabaya", "Indonesia", "Asia", "Havana", "Cuba", NORTH),
    ("Lahore", "Pakistan", "Asia", "Seattle", US, NORTH),
    ("Dhaka", "Bangladesh", "Asia", "Lagos", "Nigeria", "Africa"),
    ("Kathmandu", "Nepal", "Asia", "Addis Ababa", "Ethiopia", "Africa"),
    ("Colombo", "Sri Lanka", "Asia", "Melbourne", "Australia", "Oceania"),
    ("Basra", "Iraq", "Asia", "Vancouver", "Canada", NORTH),
    ("Jeddah", "Saudi Arabia", "Asia", "Toronto", "Canada", NORTH),
    ("Amman", "Jordan", "Asia", "Wellington", "New Zealand", "Oceania"),
    ("Damascus", "Syria", "Asia", "Montevideo", "Uruguay", SOUTH),
    ("Beirut", "Lebanon", "Asia", "Mombasa", "Kenya", "Africa"),
    ("Doha", "Qatar", "Asia", "Managua", "Nicaragua", NORTH),
    ("Ulaanbaatar", "Mongolia", "Asia", "Houston", US, NORTH),
    ("Aswan", "Egypt", "Africa", "Denver", US, NORTH),
    ("Kano", "Nigeria", "Africa", "Brisbane", "Australia", "Oceania"),
    ("Ibadan", "Nigeria", "Africa", "Philadelphia", US, NORTH),
    ("Kumasi", "Ghana", "Africa", "Guayaquil", "Ecuador", SOUTH),
    ("Marrakesh", "Morocco", "Africa", "Calgary", "Canada", NORTH),
    ("Durban", "South Africa", "Africa", "Tijuana", "Mexico", NORTH),
    ("Luanda", "Angola", "Africa", "Auckland", "New Zealand", "Oceania"),
    ("Harare", "Zimbabwe", "Africa", "Maracaibo", "Venezuela", SOUTH),
    ("Lusaka", "Zambia", "Africa", "Acapulco", "Mexico", NORTH),
    ("Kigali", "Rwanda", "Africa", "Mendoza", "Argentina", SOUTH),
    ("Kingston", "Jamaica", NORTH, "Khartoum", "Sudan", "Africa"),
    ("Tegucigalpa", "Honduras", NORTH, "Suva", "Fiji", "Oceania"),
)
"""First city, its country and continent; second city, its country and continent."""

COUPLES: tuple[tuple[City, City], ...] = tuple((City(*row[:3]), City(*row[3:])) for row in ROWS)
