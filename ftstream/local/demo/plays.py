"""The plays: what each kind of operation writes, and what it changes in the remembered world.

A play returns the steps of one transaction, or None while the rows it needs are not there yet.
Every play can be done twice in a row: values are absolute and rows found by key (only a player's
count of hands grows once more, and two hashes change places again). So a transaction whose
commit was lost with its connection may simply be repeated.
"""

import hashlib
from dataclasses import replace
from typing import Final

from ftstream.local.demo import poker, rows
from ftstream.local.demo.operations import (
    PlayerRow,
    PlayStatement,
    SeatRow,
    SessionRow,
    call,
    write,
)
from ftstream.local.demo.world import Hand, Session, World

Steps = list[PlayStatement]
SEATS: Final = 10


def import_session(world: World) -> Steps:
    """A session's file arrives, first for a session whose hands came before it."""
    waiting = [session for session in world.sessions if session.row is None]
    session = waiting[0] if waiting else world.open_session()
    session.exported = world.export_hands()
    session.row = rows.session_row(world.rng, session.session_id, world.now, session.exported)
    return [write("upsert_session", session.row)]


def grow_session(world: World) -> Steps | None:
    """The file comes again with more hands; beyond the largest size its oldest hands go."""
    if not (session := _imported(world)) or not session.row:
        return None
    latest = poker.exported_hand(world.rng, len(session.exported) + 1, world.now)
    hands = [*session.exported, latest]
    while sum(len(hand) + 1 for hand in hands) + 1_000 > world.largest:
        del hands[0]
    session.exported = hands
    session.row = _with_export(session.row, hands)
    return [write("replace_export", session.row)]


def reimport_session(world: World) -> Steps | None:
    """The importer sends the same file under a new id, and its upsert changes the key."""
    if not (session := _imported(world)) or not session.row:
        return None
    session.row = replace(session.row, id=rows.new_id(world.rng), processed_at=world.now)
    return [write("upsert_session", session.row)]


def rekey_session(world: World) -> Steps | None:
    """The key changes by itself: an update that carries no value for raw_json."""
    if not (session := _imported(world)) or not session.row:
        return None
    session.row = replace(session.row, id=rows.new_id(world.rng))
    return [call("rekey_session", session_id=session.session_id, id=session.row.id)]


def correct_session(world: World) -> Steps | None:
    if not (session := _imported(world)) or not session.row:
        return None
    failed = world.rng.random() < 0.3
    session.row = replace(
        session.row,
        event_title=world.pick(("Final Table", "파이널 테이블", "", None)),
        nas_path=world.pick((None, "", "/nas/gfx/O'Brien\\x.json")),
        sync_status="failed" if failed else world.pick(("synced", "updated", "archived")),
        sync_error='line 1: "unexpected" \\ token' if failed else None,
        payouts=world.pick((None, [], [5, 0, 2_147_483_647])),
        processed_at=world.now,
    )
    return [write("correct_session", session.row)]


def delete_session(world: World) -> Steps | None:
    """The session goes and its hands stay: no foreign key ties them."""
    if not (session := _imported(world)):
        return None
    world.sessions.remove(session)
    return [call("delete_session", session_id=session.session_id)]


def recompute_totals(world: World) -> Steps | None:
    if not (session := _imported(world)):
        return None
    return [call("recompute_totals", session_id=session.session_id)]


def swap_file_hashes(world: World) -> Steps | None:
    """Two files were taken for each other: their hashes and names change places."""
    if len(imported := world.imported_sessions()) < 2:
        return None
    one, two = world.rng.sample(imported, 2)
    if not one.row or not two.row:
        return None
    one.row, two.row = (
        replace(one.row, file_hash=two.row.file_hash, file_name=two.row.file_name),
        replace(two.row, file_hash=one.row.file_hash, file_name=one.row.file_name),
    )
    aside = replace(one.row, file_hash=f"moving:{one.session_id}")
    return [write("move_file", aside, two.row, one.row)]


def import_hand(world: World) -> Steps | None:
    if not world.sessions:
        return None
    return _next_hand(world, world.pick(world.sessions))


def import_hand_before_session(world: World) -> Steps:
    """The first hand of a session arrives while the session's file is still on its way."""
    return _next_hand(world, world.open_session())


def overwrite_hand(world: World) -> Steps | None:
    """The export holds a hand number twice: the later hand takes over the row and its id."""
    if not (found := world.any_hand()):
        return None
    session, hand = found
    steps, later = _hand_in(world, session, hand.row.hand_num)
    hand.row = replace(later.row, id=hand.row.id)
    hand.seats = [replace(seat, hand_id=hand.row.id) for seat in later.seats]
    return [*steps, *_hand_out(hand)]


def correct_hand(world: World) -> Steps | None:
    if not (found := world.any_hand()):
        return None
    _, hand = found
    old = hand.row
    new = rows.hand_row(world.rng, old.session_id, old.hand_num, old.start_time, old.player_count)
    hand.row = replace(new, id=old.id)
    return [write("correct_hand", hand.row)]


def delete_hand(world: World) -> Steps | None:
    """A hand goes, and by cascade its seats."""
    if not (found := world.any_hand()):
        return None
    session, hand = found
    session.hands.remove(hand)
    return [call("delete_hand", id=hand.row.id)]


def reuse_hand_num(world: World) -> Steps | None:
    """A hand is deleted and another takes its number, in one transaction."""
    if not (found := world.any_hand()):
        return None
    session, gone = found
    session.hands.remove(gone)
    steps, hand = _hand_in(world, session, gone.row.hand_num)
    world.keep_hand(session, hand)
    return [call("delete_hand", id=gone.row.id), *steps, *_hand_out(hand)]


def renumber_hands(world: World) -> Steps | None:
    """Two to four hands of a session pass their numbers round, by way of negative ones."""
    sessions = [session for session in world.sessions if len(session.hands) > 1]
    if not sessions:
        return None
    hands = world.pick(sessions).hands
    moving = world.rng.sample(hands, world.rng.randint(2, min(4, len(hands))))
    numbers = [hand.row.hand_num for hand in moving]
    for hand, number in zip(moving, [*numbers[1:], numbers[0]], strict=True):
        hand.row = replace(hand.row, hand_num=number)
    return [
        call("set_hand_nums_aside", ids=[hand.row.id for hand in moving]),
        write("number_hand", *(hand.row for hand in moving)),
    ]


def correct_seat(world: World) -> Steps | None:
    if not (found := world.any_hand()):
        return None
    _, hand = found
    index = world.rng.randrange(len(hand.seats))
    seat = hand.seats[index]
    hand.seats[index] = replace(
        seat,
        hole_cards=world.pick((None, [], poker.cards(world.rng, 2))),
        has_shown=not seat.has_shown,
        end_stack_amt=poker.amount(world.rng),
        vpip_percent=poker.percent(world.rng),
        hand_description=world.pick((None, "", "두 페어, A와 8")),
        won_amount=poker.money(world.rng),
        player_name=world.pick((seat.player_name, poker.player_name(world.rng))),
    )
    return [write("correct_seat", hand.seats[index])]


def swap_seats_by_free_seat(world: World) -> Steps | None:
    """Two players change seats, one by way of a seat that is free."""
    hands = [h for s in world.sessions for h in s.hands if len(h.seats) < SEATS]
    if not hands:
        return None
    hand = world.pick(hands)
    taken = {seat.seat_num for seat in hand.seats}
    free = world.pick([number for number in range(1, SEATS + 1) if number not in taken])
    one, two = _swap_two_seats(world, hand)
    return [write("move_seat", replace(one, seat_num=free), two, one)]


def swap_seats_by_reinsert(world: World) -> Steps | None:
    """Two players change seats where none may be free: both rows go and come again."""
    if not (found := world.any_hand()):
        return None
    _, hand = found
    one, two = _swap_two_seats(world, hand)
    return [call("delete_seats", ids=[one.id, two.id]), write("insert_seat", one, two)]


def rename_player(world: World) -> Steps | None:
    """A name is corrected: half the time so that the hash stays, half so that it changes."""
    if not world.players:
        return None
    old = world.players.pop(world.pick(tuple(world.players)))
    name = world.pick((f" {old.name} ", f"{old.name} {world.rng.randrange(10**6)}"))
    long = old.long_name or ""
    new = replace(old, name=name, player_hash=poker.player_hash(name, long), seen_at=world.now)
    world.keep_player(new)
    return [
        call(
            "rename_player",
            old_hash=old.player_hash,
            player_hash=new.player_hash,
            name=name,
            seen_at=world.now,
        )
    ]


def delete_player(world: World) -> Steps | None:
    """A player goes, unless an override or image refers to it; seats lose their player."""
    if not world.players:
        return None
    player = world.players.pop(world.pick(tuple(world.players)))
    return [
        call("lock_player", player_hash=player.player_hash),
        call("delete_player", player_hash=player.player_hash),
    ]


def swap_player_hashes(world: World) -> Steps | None:
    """Two players were taken for each other: names and hashes change places."""
    if len(world.players) < 2:
        return None
    one, two = (world.players[key] for key in world.rng.sample(tuple(world.players), 2))
    aside = f"moving:{one.player_hash}"
    moves = (
        {"old_hash": one.player_hash, "player_hash": aside, "name": one.name},
        {"old_hash": two.player_hash, "player_hash": one.player_hash, "name": one.name},
        {"old_hash": aside, "player_hash": two.player_hash, "name": two.name},
    )
    long_names = (one.long_name, one.long_name, two.long_name)
    values = [{**m, "long_name": n} for m, n in zip(moves, long_names, strict=True)]
    return [PlayStatement("move_player_hash", tuple(values))]


def _imported(world: World) -> Session | None:
    imported = world.imported_sessions()
    return world.pick(imported) if imported else None


def _with_export(row: SessionRow, hands: list[bytes]) -> SessionRow:
    document = poker.export(
        row.session_id, row.table_type, row.event_title or "", row.session_created_at, hands
    )
    digest = hashlib.sha256(document.encode()).hexdigest()
    return replace(row, raw_json=document, file_hash=digest, hand_count=len(hands))


def _next_hand(world: World, session: Session) -> Steps:
    session.last_hand_num += 1
    steps, hand = _hand_in(world, session, session.last_hand_num)
    world.keep_hand(session, hand)
    return [*steps, *_hand_out(hand)]


def _hand_in(world: World, session: Session, number: int) -> tuple[Steps, Hand]:
    """Make a hand with its seats, and the step that sees to their players."""
    seats = sorted(world.rng.sample(range(1, SEATS + 1), world.rng.randint(2, SEATS)))
    hand = rows.hand_row(world.rng, session.session_id, number, world.now, len(seats))
    players: dict[str, PlayerRow] = {}
    while len(players) < len(seats):  # nobody sits in two seats
        player = _sit_down(world)
        players[player.player_hash] = player
    taken = zip(seats, players.values(), strict=True)
    made = [rows.seat_row(world.rng, hand.id, seat, player) for seat, player in taken]
    # In the order of their hashes, as every writer of players should lock them.
    step = write("upsert_player", *(players[key] for key in sorted(players)))
    return [step], Hand(hand, made)


def _sit_down(world: World) -> PlayerRow:
    """Return a known player, or one time in ten (and at first) a new one."""
    if len(world.players) >= SEATS and world.rng.random() < 0.9:
        return world.players[world.pick(tuple(world.players))]
    player = rows.player_row(world.rng, world.now)
    world.keep_player(player)
    return player


def _hand_out(hand: Hand) -> Steps:
    return [
        write("upsert_hand", hand.row),
        call("clear_seats", hand_id=hand.row.id),
        write("insert_seat", *hand.seats),
    ]


def _swap_two_seats(world: World, hand: Hand) -> tuple[SeatRow, SeatRow]:
    first, second = world.rng.sample(range(len(hand.seats)), 2)
    one, two = hand.seats[first], hand.seats[second]
    hand.seats[first] = replace(one, seat_num=two.seat_num)
    hand.seats[second] = replace(two, seat_num=one.seat_num)
    return hand.seats[first], hand.seats[second]
