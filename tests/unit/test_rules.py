"""The rules file: what it may say, errors that name the place, fingerprints."""

import datetime as dt

import pytest

from assets.attribution.rules import SHIPPED, Rules, RulesError, changes, load_rules, parse_rules

TEXT = SHIPPED.read_text()


def seconds(n):
    return dt.timedelta(seconds=n)


def line_of(text, start):
    return next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith(start))


def test_the_shipped_file_says_the_defaults():
    assert load_rules() == Rules()


def test_rules_written_out_are_read_back():
    rules = Rules(
        window=seconds(1234.5), delay=seconds(3), horizon=dt.timedelta(minutes=7), valid_click_dwell=seconds(3),
        like_stay=seconds(5), labels=(("like", "fav"), *Rules().labels[1:]), version='a "name"',
    )  # fmt: skip
    assert parse_rules(rules.to_toml(), "x") == rules
    assert parse_rules(rules.to_toml(), "x").fingerprint == rules.fingerprint


def test_the_fingerprint_is_of_the_content_alone():
    same = parse_rules("# a comment\n" + TEXT.replace('version = "default"', 'version = "another name"'), "x")
    assert same.fingerprint == Rules().fingerprint and len(Rules().fingerprint) == 12
    assert Rules(horizon=Rules().window).fingerprint == Rules().fingerprint
    swapped = [Rules(labels=(pair, *Rules().labels[1:])) for pair in (("like", "fav"), ("fav", "like"))]
    assert swapped[0].fingerprint == swapped[1].fingerprint != Rules().fingerprint
    assert Rules(like_stay=seconds(5)).fingerprint != Rules().fingerprint


@pytest.mark.parametrize(
    "old, new, line, said",
    [
        ('window = "20m"', 'window = "20"', 'window = "20"', "sessions.window = '20' is not a duration above zero"),
        ('window = "20m"', "window = 20", "window = 20", "sessions.window = 20 is not a duration above zero"),
        ('window = "20m"', 'windoww = "20m"', "windoww", "unknown key sessions.windoww; allowed: window, horizon"),
        ('long_view = "10s"', "", "[views]", "views.long_view is missing"),
        ('like = "0s"', 'like = "soon"', 'like = "soon"', "stay.like = 'soon' is not a duration"),
        ('share = ["share"]', 'share = ["unlike"]', "share", "unlike cannot make a label, it undoes like; allowed: like, fav"),
        ('share = ["share"]', 'share = ["click"]', "share", "click cannot make a label, it opens a click window"),
        ('share = ["share"]', 'share = ["repost"]', "share", "is not a list of one or more of: like, fav"),
        ('share = ["share"]', "share = []", "share", "is not a list of one or more of"),
        ('share = ["share"]', 'share = ["share"]\nrepost = ["share"]', "repost", "a label is a column of the tables"),
        ('# horizon = "20m"', 'horizon = "21m" #', "horizon", "sessions.horizon = 21m is not between 0 and sessions.window"),
        ("[views]", "[veiws]", "[veiws]", "unknown [veiws]; allowed: version, sessions"),
        ('version = "default"', "version = 3", "version", "version is missing or no text"),
    ],
)  # fmt: skip
def test_an_error_names_file_line_key_and_what_is_allowed(old, new, line, said):
    text = TEXT.replace(old, new, 1)
    with pytest.raises(RulesError) as caught:
        parse_rules(text, "rules.toml")
    assert str(caught.value).startswith(f"rules.toml:{line_of(text, line)}: ") and said in str(caught.value)


def test_no_toml_is_said():
    with pytest.raises(RulesError, match="rules.toml: not TOML"):
        parse_rules("window = ", "rules.toml")


def test_changes_are_named():
    assert changes(Rules(), Rules(like_stay=seconds(5), version="x")) == {"like_stay": ("0s", "5s")}
