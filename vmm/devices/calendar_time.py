"""Dates as an MC146818 keeps them: proleptic Gregorian arithmetic that accepts any integers."""

from dataclasses import dataclass

DAY = 86_400
_EPOCH_DAY = 719_468
"""Days from 1 March of year 0 to 1 January 1970."""
_DAYS_IN_400_YEARS = 146_097


@dataclass(frozen=True, slots=True)
class Moment:
    """A second of a calendar day; month and day count from 1."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int

    def seconds(self) -> int:
        """Return seconds since 1970-01-01; fields out of range carry over."""
        carried, month = divmod(self.month - 1, 12)
        year = self.year + carried - (month < 2)
        day_of_year = (153 * ((month + 10) % 12) + 2) // 5 + self.day - 1
        era, year_of_era = divmod(year, 400)
        days = era * _DAYS_IN_400_YEARS + year_of_era * 365 + year_of_era // 4 - year_of_era // 100
        days += day_of_year - _EPOCH_DAY
        return days * DAY + self.hour * 3600 + self.minute * 60 + self.second


def moment(seconds: int) -> Moment:
    """Return the calendar form of `seconds` since 1970-01-01."""
    days, rest = divmod(seconds, DAY)
    era, day = divmod(days + _EPOCH_DAY, _DAYS_IN_400_YEARS)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day_of_year = day - (365 * year + year // 4 - year // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = (shifted + 2) % 12 + 1
    return Moment(
        year=year + 400 * era + (month <= 2),
        month=month,
        day=day_of_year - (153 * shifted + 2) // 5 + 1,
        hour=rest // 3600,
        minute=rest // 60 % 60,
        second=rest % 60,
    )


def weekday(seconds: int) -> int:
    """Return the day of the week of `seconds` since 1970-01-01, Sunday being 1."""
    return (seconds // DAY + 4) % 7 + 1
