"""UTC days, the partitions of all tables."""

from datetime import date, datetime, timedelta, timezone


def midnight(day: date) -> datetime:
    """The start of a UTC day."""
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc)


def days_between(start: date, end: date) -> list[date]:
    """UTC days of the half-open range [start, end)."""
    return [start + timedelta(days=offset) for offset in range((end - start).days)]


def days_of(start: datetime, end: datetime) -> list[date]:
    """UTC days that the half-open window [start, end) of UTC times touches."""
    return days_between(start.date(), (end - timedelta(microseconds=1)).date() + timedelta(days=1))
