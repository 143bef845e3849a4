"""What a caller's URL may make the service connect to: refusals first."""

from __future__ import annotations

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules.addresses import (
    ADDRESSES_MAX,
    Allowed,
    Forbidden,
    is_public,
    may_call,
    require_all,
    resolve_nothing,
    target,
)

PUBLIC = ("1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001:80b::200e", "::ffff:8.8.8.8")

MEASURED = ("64:ff9b::7f00:1", "::7f00:1", "224.0.0.1", "fec0::1", "192.88.99.1")
"""`is_global` says True of each on Python 3.11 (specs: service, section 13)."""

INSIDE = (
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9"),
    *("239.1.2.3", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:192.88.99.1"),
    *("::127.0.0.1", "64:ff9b:1::1", "100::1", "fc00::1", "fd12::1", "fe80::1", "ff02::1", "ff0e::1"),
    *("2001::1", "2001:0:7f00:1::", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1", "2001:10::1", "3fff::1"),
    *("4000::1", "1fff::1", "5f00::1"),
)


@pytest.mark.parametrize("text", [*MEASURED, *INSIDE])
def test_an_address_of_a_network_of_one_s_own_is_refused(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
    assert not may_call(text, Allowed())


def test_the_traps_are_traps_still_or_this_list_can_shrink() -> None:
    assert all(ipaddress.ip_address(text).is_global for text in ("64:ff9b::7f00:1", "224.0.0.1", "192.88.99.1"))


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_let_through(text: str) -> None:
    assert may_call(text, Allowed())


@pytest.mark.parametrize(
    "text", ["", "localhost", "1.1.1", "1.1.1.1 ", "01.1.1.1", "0x1.1.1.1", "2606:4700::1%lo", "x"]
)
def test_what_is_no_plain_address_is_never_called(text: str) -> None:
    assert not may_call(text, Allowed(loopback=True))


# An independent account of the same rule: networks by number, from the IANA special-purpose registries and section 13.
_NO_V4 = """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4"""
_NO_V6 = "2001::/23 2001:db8::/32 2002::/16 3fff::/20"


def _in(number: int, bits: int, networks: str) -> bool:
    return any(
        number >> (bits - net.prefixlen) == int(net.network_address) >> (bits - net.prefixlen)
        for net in map(ipaddress.ip_network, networks.split())
    )


def _edges(networks: str) -> list[int]:
    nets = [ipaddress.ip_network(text) for text in networks.split()]
    ends = [number for net in nets for number in (int(net.network_address), int(net.broadcast_address))]
    return sorted({n + step for n in ends for step in (-1, 0, 1)})


@given(st.integers(0, 2**32 - 1) | st.sampled_from([n for n in _edges(_NO_V4) if 0 <= n < 2**32]))
def test_every_v4_address_is_judged_as_the_registries_do_mapped_or_not(number: int) -> None:
    expected = not _in(number, 32, _NO_V4)
    assert is_public(ipaddress.IPv4Address(number)) is expected
    assert is_public(ipaddress.IPv6Address(0xFFFF << 32 | number)) is expected


@given(st.integers(0, 2**125 - 1).map(lambda n: (1 << 125) | n) | st.sampled_from(_edges(_NO_V6)))
def test_every_v6_address_of_unicast_is_judged_as_the_registries_do(number: int) -> None:
    assume_exception = _in(
        number, 128, "2001:1::1/128 2001:1::2/128 2001:3::/32 2001:4:112::/48 2001:20::/28 2001:30::/28"
    )
    if not assume_exception:  # Python releases differ on these, and both answers are public services'
        assert is_public(ipaddress.IPv6Address(number)) is (
            _in(number, 128, "2000::/3") and not _in(number, 128, _NO_V6)
        )


@given(st.integers(0, 2**128 - 1))
def test_no_v6_address_outside_of_unicast_passes_but_a_mapped_public_one(number: int) -> None:
    address = ipaddress.IPv6Address(number)
    if is_public(address):
        assert number >> 125 == 1 or (number >> 32 == 0xFFFF and is_public(ipaddress.IPv4Address(number & 0xFFFFFFFF)))


@given(st.integers(0, 2**32 - 1))
def test_v4_hidden_in_v6_never_reaches_further_than_v4(number: int) -> None:
    for hidden in ((0x0064FF9B << 96) | number, number, (0x2002 << 112) | (number << 80), (0x20010000 << 96) | number):
        assert not is_public(ipaddress.IPv6Address(hidden))


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/", "HTTPS://example.com/", "ftp://example.com", "//example.com", "example.com", ""),
        *("https://", "https:///x", "https:example.com", "https:/example.com", "https:\\\\example.com"),
        *("https://user@example.com/", "https://user:pw@example.com/", "https://example.com@127.0.0.1/"),
        *("https://example.com\\@127.0.0.1/", "https://example.com\\.evil.org/", "https://127.0.0.1\\.example.com/"),
        *("https://example.com/#x", "https://example.com#@127.0.0.1/", "https://example.com/a b"),
        *("https://example.com:/", "https://example.com:0/", "https://example.com:0443/", "https://example.com:8443/"),
        *("https://example.com:443443/", "https://example.com:+443/", "https://example.com: 443/", "https://a.b:٤٤٣/"),
        *("https://example.com./", "https://.example.com/", "https://exa..mple.com/", "https://example/"),
        *("https://localhost/", "https://LOCALHOST/", "https://-a.example.com/", "https://a-.example.com/"),
        *("https://ex_ample.com/", "https://ex%61mple.com/", "https://%31%32%37.0.0.1/", "https://*.example.com/"),
        *(
            "https://bücher.example/",
            "https://ⓔxample.com/",
            "https://127。0。0。1/",
            "https://\uff11\uff12\uff17.0.0.1/",
        ),
        *("https://example\u3002com/", "https://ex\u00adample.com/", "https://example.com\u200b/"),
        *("https://127.0.0.1/", "https://127.1/", "https://127.0.1/", "https://2130706433/", "https://0x7f000001/"),
        *("https://0x7f.0.0.1/", "https://0177.0.0.1/", "https://017700000001/", "https://127.0.0.01/", "https://0/"),
        *(
            "https://1.1.1.1.1/",
            "https://256.1.1.1/",
            "https://a.1/",
            "https://a.0x/",
            "https://a.0x1/",
            "https://1.1/",
        ),
        *("https://[::1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/", "https://[0:0:0:0:0:ffff:7f00:1]/"),
        *("https://[64:ff9b::7f00:1]/", "https://[fe80::1%25lo]/", "https://[fe80::1%lo]/", "https://[2606:4700::1/"),
        *("https://[v1.x]/", "https://[1.1.1.1]/", "https://[2606:4700::1]x/", "https://2606:4700::1/"),
        *(
            "https://example.com/\r\nHost: x",
            "https://example.com/\n",
            "\nhttps://example.com/",
            " https://example.com",
        ),
        *("https://example.com/\x00", "https://example.com\t/", "https://exam\tple.com/", "https://example.com/\x7f"),
        *("https://example.com/é", "https://example.com/%", "https://example.com/%0", "https://example.com/%zz"),
        *("https://example.com?x\r\ny", "https://example.com/<>", 'https://example.com/"', "https://example.com/`"),
        *("https://" + "a" * 64 + ".com/", "https://" + "a." * 130 + "com/", "https://example.com/" + "a" * 2048),
    ],
)
def test_a_url_that_two_parsers_could_read_differently_is_refused(url: str) -> None:
    with pytest.raises(Forbidden):
        target(url, Allowed())


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://example.com", "example.com", 443, "/", "example.com"),
        ("https://Example.COM:443/a/b?c=d&e=%20/?", "example.com", 443, "/a/b?c=d&e=%20/?", "example.com"),
        ("https://xn--bcher-kva.example?x", "xn--bcher-kva.example", 443, "/?x", "xn--bcher-kva.example"),
        ("https://example.com:8443//x/../y", "example.com", 8443, "//x/../y", "example.com:8443"),
        ("https://1.1.1.1/x", "1.1.1.1", 443, "/x", "1.1.1.1"),
        ("https://[2606:4700:0::1111]:8443/", "2606:4700::1111", 8443, "/", "[2606:4700::1111]:8443"),
        ("https://[2606:4700::AB]/", "2606:4700::ab", 443, "/", "[2606:4700::ab]"),
        ("https://a1.b2-c.0a/", "a1.b2-c.0a", 443, "/", "a1.b2-c.0a"),
    ],
)
def test_a_plain_url_is_read_as_it_stands(url: str, host: str, port: int, path: str, authority: str) -> None:
    found = target(url, Allowed(ports=frozenset({443, 8443})))
    assert (found.host, found.port, found.path, found.authority) == (host, port, path, authority)


@given(st.text(max_size=60) | st.from_regex(r"https://[ -~]{0,40}", fullmatch=True))
def test_whatever_is_read_can_be_sent_and_is_no_address_of_ours(text: str) -> None:
    try:
        found = target(text, Allowed())
    except Forbidden:
        return
    line = f"POST {found.path} HTTP/1.1\r\nHost: {found.authority}"
    assert line.isascii()
    assert not any(letter.isspace() for letter in found.path + found.authority)
    assert found.address is None or is_public(found.address)


def test_every_address_must_pass_and_which_one_failed_is_not_told() -> None:
    told = set()
    for addresses in (["1.1.1.1", "10.0.0.1"], ["10.0.0.1"], [], ["1.1.1.1", "x"], ["1.1.1.1"] * (ADDRESSES_MAX + 1)):
        with pytest.raises(Forbidden) as caught:
            require_all(addresses, Allowed())
        told.add(str(caught.value))
    assert len(told) == 1
    assert require_all(["1.1.1.1", "2606:4700:0::1", "1.1.1.1"], Allowed()) == ("1.1.1.1", "2606:4700::1")
    assert list(resolve_nothing("example.com", 1.0, "t")) == []


def test_loopback_is_called_only_where_an_operator_said_so() -> None:
    rehearsal = Allowed(ports=frozenset({8443}), loopback=True)
    assert target("https://localhost:8443/", rehearsal).host == "localhost"
    assert target("https://127.0.0.1:8443/", rehearsal).host == "127.0.0.1"
    assert may_call("::ffff:127.0.0.1", rehearsal)
    generator = random.Random(7)
    for _ in range(200):
        text = str(ipaddress.IPv4Address(generator.getrandbits(32)))
        assert may_call(text, rehearsal) is (may_call(text, Allowed()) or text.startswith("127."))
    for text in ("10.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0"):
        assert not may_call(text, rehearsal)
