import pytest

from app.refusals import RemoteImageRefused
from app.remote_addresses import MAX_ADDRESS_LENGTH, is_numeric, is_public, read_address

HOSTS = frozenset({"images.example.org", "xn--bcher-kva.example", "localhost"})

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
    "",
    "0x7f000001",
    "2130706433",
    "127.1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_of_the_public_internet_are_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.63.255.255", "100.128.0.1", "2606:4700::1111"],
)
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "https://images.example.org/a.jpg",
        "http://images.example.org/a.jpg?size=2&x=%20",
        "https://images.example.org",
        "HTTPS://Images.EXAMPLE.org/a.jpg",
        "https://images.example.org./a.jpg",
        "https://images.example.org:443/a.jpg",
        "http://images.example.org:80/a.jpg",
        "https://bücher.example/a.jpg",
        "https://BÜCHER.example/a.jpg",
        "https://xn--bcher-kva.example/a.jpg#top",
    ],
)
def test_addresses_on_listed_hosts_are_read(address: str) -> None:
    assert read_address(address, HOSTS).host in HOSTS


def test_path_and_query_are_kept_and_the_fragment_is_not() -> None:
    found = read_address("https://images.example.org/a%20b/c.jpg?x=1&y=%2F#top", HOSTS)
    assert (found.scheme, found.port, found.target) == ("https", 443, b"/a%20b/c.jpg?x=1&y=%2F")
    assert read_address("http://images.example.org", HOSTS).target == b"/"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "images.example.org/a.jpg",
        "//images.example.org/a.jpg",
        "ftp://images.example.org/a.jpg",
        "file:///etc/passwd",
        "gopher://images.example.org/",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "https:/images.example.org/a.jpg",
        "https:///a.jpg",
        "https://",
        "https://other.example.org/a.jpg",
        "https://images.example.org.evil.example/a.jpg",
        "https://evil.example/images.example.org",
        "https://sub.images.example.org/a.jpg",
        "https://images.example.org../a.jpg",
        "https://images.example.org:8080/a.jpg",
        "https://images.example.org:80/a.jpg",
        "http://images.example.org:443/a.jpg",
        "http://images.example.org:0/a.jpg",
        "http://images.example.org:99999/a.jpg",
        "http://images.example.org:-1/a.jpg",
        "https://user@images.example.org/a.jpg",
        "https://user:pass@images.example.org/a.jpg",
        "https://@images.example.org/a.jpg",
        "https://evil.example@images.example.org/a.jpg",
        "https://images.example.org@evil.example/a.jpg",
        "https://images.example.org%40evil.example/a.jpg",
        "https://images.example.org\\@evil.example/a.jpg",
        "https://images.example.org\\.evil.example/a.jpg",
        "https://evil.example#@images.example.org/",
        "https://images.example.org/a b.jpg",
        " https://images.example.org/a.jpg",
        "https://images.example.org/a.jpg\r\nX-Evil: 1",
        "https://images.example.org/\x00",
        "https://images\t.example.org/",
        "https://images.example.org/" + "a" * MAX_ADDRESS_LENGTH,
        "https://[::1]/a.jpg",
        "https://[::ffff:127.0.0.1]/a.jpg",
        "https://[fe80::1%25eth0]/a.jpg",
        "https://[/a.jpg",
        "https://127.0.0.1/a.jpg",
        "https://127.1/a.jpg",
        "https://2130706433/a.jpg",
        "https://0x7f000001/a.jpg",
        "https://0x7f.0.0.1/a.jpg",
        "https://0177.0.0.1/a.jpg",
        "https://017700000001/a.jpg",
        "https://127.0.0.1./a.jpg",
        "https://①②⑦.⓪.⓪.①/a.jpg",
        "https://127。0。0。1/a.jpg",
        "https://images.example.org。evil.example/a.jpg",
        "https://ı​mages.example.org/a.jpg",
        "https://ımages.example.org/a.jpg",
        "https://xn--a.example/a.jpg",
        "https://" + "a" * 64 + ".example/a.jpg",
    ],
)
def test_other_addresses_are_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(RemoteImageRefused) as refused:
        read_address(address, HOSTS)
    assert "evil" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "1", "0x7f", "0x7f.1", "a.0x1", "a.1", "0x", "::1", "a.", ""])
def test_hosts_that_some_program_takes_for_an_ip_address_are_known(host: str) -> None:
    assert is_numeric(host)
    with pytest.raises(RemoteImageRefused):
        read_address(f"https://{host}/", frozenset({host}))


@pytest.mark.parametrize("host", ["images.example.org", "127.0.0.1.example", "1.a", "a1", "dead.beef", "x0"])
def test_host_names_are_no_ip_addresses(host: str) -> None:
    assert not is_numeric(host)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b.jpg", b"/b.jpg"),
        ("b.jpg?x=1", b"/a/b.jpg?x=1"),
        ("https://images.example.org/c.jpg", b"/c.jpg"),
        ("//images.example.org/d.jpg", b"/d.jpg"),
    ],
)
def test_redirects_within_the_list_are_followed(location: str, target: bytes) -> None:
    assert read_address("https://images.example.org/a/0.jpg", HOSTS).joined(location, HOSTS).target == target


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/a.jpg",
        "//evil.example/a.jpg",
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "//[::1]/",
        "file:///etc/passwd",
        "https://user:pass@images.example.org/",
        "https://images.example.org:8443/",
        "\\\\evil.example/",
        "/a\r\nb",
        "https://[",
        "x" * (MAX_ADDRESS_LENGTH + 1),
    ],
)
def test_redirects_elsewhere_are_refused(location: str) -> None:
    with pytest.raises(RemoteImageRefused):
        read_address("https://images.example.org/a.jpg", HOSTS).joined(location, HOSTS)
