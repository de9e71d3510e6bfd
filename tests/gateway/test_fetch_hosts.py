"""Which URLs the gateway follows, and to which addresses."""

import pytest

from services.gateway.fetch_hosts import FetchError, FetchHosts

LISTED = (
    "media.example.org",
    "https://Other.example.org:8443",
    "http://plain.example.org",
    "http://10.0.0.7:9000",
    "[fd00::1]",
)


@pytest.mark.parametrize(
    ("url", "host", "port", "encrypted", "authority", "target"),
    [
        (
            *("https://media.example.org/a/b.wav?c=d&e#f", "media.example.org", 443, True),
            *("media.example.org", "/a/b.wav?c=d&e"),
        ),
        (
            *("HTTPS://MEDIA.example.org.:443", "media.example.org", 443, True),
            *("media.example.org", "/"),
        ),
        (
            *("https://other.example.org:8443/x", "other.example.org", 8443, True),
            *("other.example.org:8443", "/x"),
        ),
        (
            *("http://plain.example.org/x", "plain.example.org", 80, False),
            *("plain.example.org", "/x"),
        ),
        ("http://10.0.0.7:9000/x", "10.0.0.7", 9000, False, "10.0.0.7:9000", "/x"),
        ("https://[FD00:0::1]/x", "fd00::1", 443, True, "[fd00::1]", "/x"),
    ],
)
def test_a_url_of_a_host_on_the_list_names_a_place(
    url: str, host: str, port: int, encrypted: bool, authority: str, target: str
) -> None:
    place = FetchHosts(LISTED).place(url)
    assert (place.host, place.port, place.encrypted) == (host, port, encrypted)
    assert (place.authority, place.target) == (authority, target)


@pytest.mark.parametrize(
    "url",
    [
        *("", "media.example.org/x", "//media.example.org/x", "file:///etc/passwd", "https://"),
        *("ftp://media.example.org/x", "gopher://media.example.org", "data:audio/wav;base64,AA=="),
        "http://media.example.org/x",  # HTTP is listed for others
        "https://plain.example.org/x",
        "https://media.example.org:8443/x",
        "https://media.example.org:0/x",
        "https://media.example.org:99999/x",
        "https://media.example.org:port/x",
        "https://evil.example.org/x",
        "https://sub.media.example.org/x",
        "https://media.example.org.evil.example/x",
        "https://media.example.org@evil.example/x",
        "https://user:secret@media.example.org/x",
        "https://@media.example.org/x",
        "https://media.example.org\\@evil.example/x",
        "https://evil.example\\media.example.org/x",
        "https://media.example.org/\r\nHost: evil",
        "https://media.exa\tmple.org/x",
        " https://media.example.org/x",
        "https://mediä.example.org/x",
        "https://[::1/x",
        "https://127.0.0.1/x",
        "https://2130706433/x",
        "https://0x7f.1/x",
        "http://10.0.0.7/x",
        "https://media.example.org/" + "x" * 5000,
    ],
)
def test_every_other_url_is_refused(url: str) -> None:
    with pytest.raises(FetchError):
        FetchHosts(LISTED).place(url)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_a_host_may_have_public_addresses(address: str) -> None:
    FetchHosts(LISTED).place("https://media.example.org/x").check_address(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.0.1", "0.0.0.0", "10.0.0.8", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255"),
        *("198.18.0.1", "192.0.2.1", "240.0.0.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00::2", "fec0::1", "ff02::1"),
        *("ff0e::1", "2001:db8::1", "2001:0:7f00:1::"),
        # addresses of version 4 in those of version 6
        *("::ffff:127.0.0.1", "::127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1"),
    ],
)
def test_a_name_never_leads_inside(address: str) -> None:
    place = FetchHosts(LISTED).place("https://media.example.org/x")
    with pytest.raises(FetchError):
        place.check_address(address)


def test_an_address_inside_may_be_connected_to_where_it_is_what_is_listed() -> None:
    hosts = FetchHosts(LISTED)
    hosts.place("http://10.0.0.7:9000/x").check_address("10.0.0.7")
    hosts.place("https://[fd00::1]/x").check_address("fd00::1")
    with pytest.raises(FetchError):
        hosts.place("http://10.0.0.7:9000/x").check_address("10.0.0.8")


@pytest.mark.parametrize(
    "entry", ["", "https://a.example/path", "a.example/", "ftp://a.example", "a b", "u@a.example"]
)
def test_what_is_no_host_is_no_entry(entry: str) -> None:
    with pytest.raises(FetchError):
        FetchHosts([entry])


def test_an_empty_list_allows_nothing() -> None:
    assert not FetchHosts(())
    with pytest.raises(FetchError):
        FetchHosts(()).place("https://media.example.org/x")
