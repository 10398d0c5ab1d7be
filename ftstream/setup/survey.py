"""A look at both databases before anything is changed, and what is wrong with what was seen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from ftstream.flows import Flow, Site
from ftstream.postgres.catalog import TableMissing
from ftstream.postgres.connection import open_site
from ftstream.settings import Settings, unprotected
from ftstream.setup.expectations import Wanted, wanted
from ftstream.setup.preflight import pair_problems, site_problems
from ftstream.setup.preflight_roles import login_setting
from ftstream.setup.problem import Problem
from ftstream.setup.provision import Verifiers
from ftstream.setup.site_state import Login, SiteState, look, try_login


class PreflightFailed(Exception):
    """Something would keep the flows from working; nothing was changed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class SetupFailed(Exception):
    """A step failed; its transaction left nothing behind, the steps reported before it are done."""


@dataclass(frozen=True, slots=True)
class SurveyedSite:
    """One site: what it should have, what it has, and verifiers of the roles' passwords."""

    wanted: Wanted
    state: SiteState
    logins: Mapping[str, Login]
    verifiers: Verifiers


@dataclass(frozen=True, slots=True)
class Survey:
    """Both sites, as far as they could be reached, and every problem found."""

    seen: Mapping[Site, SurveyedSite]
    problems: tuple[Problem, ...]

    @property
    def fatal(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.fatal)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if not problem.fatal)


async def survey(
    settings: Settings,
    flows: Sequence[Flow],
    sites: Sequence[Site] = tuple(Site),
    staying: Sequence[Flow] = (),
) -> Survey:
    """Look at the sites side by side, and judge what was seen."""
    unset = [problem for site in sites for problem in _unset(settings, site)]
    unset += [Problem("settings", each, "", fatal=False) for each in unprotected(settings)]
    ready = [site for site in sites if not list(_unset(settings, site))]
    looks = await asyncio.gather(
        *(_see(settings, wanted(site, flows, settings, staying)) for site in ready)
    )
    seen = {look.wanted.site: look for look in looks if isinstance(look, SurveyedSite)}
    unreachable = [look for look in looks if isinstance(look, Problem)]
    return Survey(seen, (*unset, *unreachable, *_judged(settings, flows, seen)))


async def open_admin(settings: Settings, site: Site) -> AsyncConnection:
    """The administrator's connection."""
    return await open_site(settings, site, admin=True)


def _unset(settings: Settings, site: Site) -> Iterator[Problem]:
    database = settings.database(site)
    for name, dsn in (("dsn", database.dsn), ("admin_dsn", database.admin_dsn)):
        if not dsn.get_secret_value():
            hint = f"Give a connection string in FTSTREAM_{site.upper()}__{name.upper()}"
            yield Problem("settings", f"{site}.{name} is not set", hint)


async def _see(settings: Settings, aim: Wanted) -> SurveyedSite | Problem:
    site = aim.site
    try:
        async with await open_admin(settings, site) as connection:
            logins = await _logins(aim, settings)
            state = await look(connection, aim, logins)
            return SurveyedSite(aim, state, logins, _verifiers(aim, state, settings, connection))
    except psycopg.OperationalError as error:
        hint = f"Is it running, and is {site}.admin_dsn right?"
        return Problem(site.value, f"cannot be reached: {str(error).strip()}", hint)
    except (psycopg.Error, TableMissing) as error:
        hint = f"Give {site}.admin_dsn a role that may read the catalogs and owns the tables"
        return Problem(site.value, f"cannot be looked at: {str(error).strip()}", hint)


def _passwords(aim: Wanted, settings: Settings) -> dict[str, str]:
    """Role to password, as the settings have them."""
    database = settings.database(aim.site)
    passwords = {aim.apply_role: database.password}
    if aim.watch_role:
        passwords[aim.watch_role] = database.watch_password
    if aim.captures:
        passwords[aim.capture_role] = settings.connect.capture_password.get_secret_value()
    return passwords


async def _logins(aim: Wanted, settings: Settings) -> dict[str, Login]:
    """Try to connect as each role; one that does not exist yet is refused."""
    by_role = conninfos(aim, settings)
    logins = await asyncio.gather(*map(try_login, by_role.values()))
    return dict(zip(by_role, logins, strict=True))


def conninfos(aim: Wanted, settings: Settings) -> dict[str, str]:
    """Return how each role logs in from here, by role, as far as its password is known."""
    database = settings.database(aim.site)
    found = {aim.apply_role: database.conninfo()}
    if aim.watch_role:
        found[aim.watch_role] = database.for_watcher().conninfo()
    password = settings.connect.capture_password.get_secret_value()
    if aim.captures and password:
        admin = database.conninfo(admin=True)
        found[aim.capture_role] = make_conninfo(admin, user=aim.capture_role, password=password)
    return found


def _verifiers(
    aim: Wanted, state: SiteState, settings: Settings, connection: AsyncConnection
) -> Verifiers:
    """For the roles that `init` makes or made; built here, so that no server sees a password."""
    due = {
        name: password
        for name, password in _passwords(aim, settings).items()
        if password and (name not in state.roles or state.roles[name].ours)
    }
    return {
        name: connection.pgconn.encrypt_password(
            password.encode(), name.encode(), b"scram-sha-256"
        ).decode()
        for name, password in due.items()
    }


def _judged(
    settings: Settings, flows: Sequence[Flow], seen: Mapping[Site, SurveyedSite]
) -> Iterator[Problem]:
    for at in seen.values():
        yield from site_problems(at.wanted, at.state)
        yield from _no_password(at, settings)
    for flow in flows:
        for target in flow.targets:
            if target in seen and target.other in seen:
                states = (seen[target.other].state, seen[target].state)
                yield from pair_problems(flow, *states, target)


def _no_password(at: SurveyedSite, settings: Settings) -> Iterator[Problem]:
    """A role that must be made needs one."""
    for name, password in _passwords(at.wanted, settings).items():
        if not password and name not in at.state.roles:
            setting = login_setting(at.wanted, name)
            yield Problem(
                "settings",
                f"{setting} holds no password for the new role {name}",
                f"Set it: {setting}",
            )
