"""The addresses that a webhook may have: none of this machine, and none where a cloud gives out its credentials."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from tf_image_classification.errors import FlagError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA_NAMES = ("metadata", "metadata.google.internal")
# Metadata services that are not at a link-local address, as 169.254.169.254 is: Google Cloud's and AWS' over IPv6,
# Alibaba Cloud's, Azure's and Oracle's.
_METADATA = frozenset(
    map(ipaddress.ip_address, ("fd20:ce::254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def check_host(host: str, *, insecure: bool) -> None:
    """Checks the host of a URL by its text: an IP address, in any spelling, or a name.

    Args:
        host: name or address, as urllib.parse gives it.
        insecure: allows this machine's own addresses.

    Raises:
        FlagError: it is a metadata service, or none that a webhook can have.
    """
    name = host.rstrip(".").lower()
    if name in _METADATA_NAMES:
        raise _refused(host)
    if name == "localhost" or name.endswith(".localhost"):
        name = "127.0.0.1"
    try:
        # 2852039166, 0xa9fea9fe, 0251.0376.0251.0376 and 169.254.43518 are 169.254.169.254 to the system's resolver.
        address = ipaddress.ip_address(name if ":" in name else socket.inet_aton(name))
    except (ValueError, OSError):
        return  # a name, which the session checks when it has been resolved
    _check_address(address, host, insecure)


def session(*, insecure: bool) -> requests.Session:
    """A session that sends nothing to an address that `check_host` refuses, whatever its name resolves to by then.

    Requests raise FlagError then. What a proxy of the environment connects to is the proxy's to check.
    """
    new = requests.Session()
    for scheme in ("https://", "http://"):
        new.mount(scheme, _Adapter(insecure))
    return new


class _Adapter(HTTPAdapter):
    def __init__(self, insecure: bool) -> None:
        super().__init__()
        self._insecure = insecure

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if not pool.proxy:
            pool.ConnectionCls = _checked(pool.ConnectionCls, self._insecure)
        return pool


def _checked(connection: type[HTTPConnection], insecure: bool) -> type[HTTPConnection]:
    """The class of connections, which check the address that they are connected to before anything is sent."""

    class Checked(connection):  # type: ignore[misc, valid-type]
        def _new_conn(self) -> socket.socket:
            connected: socket.socket = super()._new_conn()
            try:
                _check_address(ipaddress.ip_address(connected.getpeername()[0]), self.host, insecure)
            except FlagError:
                connected.close()
                raise
            return connected

    return Checked


def _check_address(address: Address, host: str, insecure: bool) -> None:
    if isinstance(address, ipaddress.IPv6Address):
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        address = embedded or address.ipv4_mapped or address.sixtofour or address
    if address.is_loopback:
        if not insecure:
            raise _refused(host, address, "--notify_insecure allows an address of this machine.")
    elif address in _METADATA or address.is_link_local or address.is_unspecified or address.is_multicast:
        raise _refused(host, address)


def _refused(host: str, address: Address | None = None, hint: str = "") -> FlagError:
    shown = host if address is None or str(address) == host else f"{host}, which is {address}"
    return FlagError(
        "--notify leads to a metadata service, to this machine, or to no single host",
        received=shown,
        expected="a webhook's public or private address",
        hint=hint,
    )
