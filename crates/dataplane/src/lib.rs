//! IP packets: TUN devices, headers, ICMP errors, address tables.
