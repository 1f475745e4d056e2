"""Data of AFN 00 to 0B, 0F and 10 worked out by hand from the fact sheet: the bytes, and what they say."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

D = Decimal

Case = tuple[int, int, bool, str, dict[str, object]]
"""AFN, Fn, up, the data in hex, names and values."""

LINE_9600 = {"data_bits_less_5": 3, "odd_parity": 0, "parity": 1, "stop_bits_less_1": 0, "baud_code": 6}
"""CBH: 9600 8E1."""

LINK: list[Case] = [
    (0x00, 3, True, "02 00000100 00", {"afn": 2, "units": [{"identifier": ((0, 1),), "error": 0}]}),
    (
        *(0x00, 3, False, "04 00000201 00 01010103 02"),
        {
            "afn": 4,
            "units": [{"identifier": ((0, 10),), "error": 0}, {"identifier": ((1, 25),), "error": 2}],
        },
    ),
    (0x02, 1, True, "", {"version": b""}),
    (0x02, 3, True, "", {}),
    (0x02, 3, True, "30 15 08 24 51 26", {"clock": datetime(2026, 11, 24, 8, 15, 30)}),
    (0x03, 1, False, "0F", {"control": {"switch": 3, "allow_forwarding": 3}}),
    (
        *(0x03, 2, True, "3D"),
        {
            "state": {
                **{"a_state": 1, "a_on_duty": 1, "a_forwards": 1},
                **{"b_state": 3, "b_on_duty": 0, "b_forwards": 0},
            }
        },
    ),
    (
        *(0x03, 4, True, "0700 1027 2000 0A00 0001"),
        {"switches": 7, "a_on_duty": 10_000, "a_normal": 32, "b_on_duty": 10, "b_normal": 256},
    ),
]

PARAMETERS: list[Case] = [
    (
        *(0x04, 1, False, "0A 02 1E20 05 0F"),
        {
            **{"rts": 10, "permitted_delay": 2, "wait": {"timeout": 30, "retries": 2}},
            **{"confirm": {"class_1": 1, "class_2": 0, "class_3": 1}, "heartbeat": 15},
        },
    ),
    (
        *(0x04, 2, False, "82 0100 3412"),
        {"forwarding": {"n": 2, "enabled": 1}, "address": [1, 0x1234]},
    ),
    (
        *(0x04, 3, False, "C0A8010A 8813 0A000001 8913 434D4E4554" + "00" * 11),
        {
            **{"main_ip": "192.168.1.10", "main_port": 5000, "backup_ip": "10.0.0.1"},
            **{"backup_port": 5001, "apn": "CMNET"},
        },
    ),
    (
        *(0x04, 4, False, "13800571500FFFFF 13800571500FFFF0"),
        {"phone": bytes.fromhex("13800571500FFFFF"), "sms_centre": bytes.fromhex("13800571500FFFF0")},
    ),
    (0x04, 5, False, "01 3412", {"scheme": 1, "parameter": 0x1234}),
    (
        *(0x04, 6, False, "0100 0200 0000 0000 0000 0000 0000 FFFF"),
        {"group_address": [1, 2, 0, 0, 0, 0, 0, 65535]},
    ),
    (
        *(0x04, 7, False, "0A000002 FFFFFF00 0A000001 02 0A000009 380C 01 02 6162 03 78797A 7017"),
        {
            **{"ip": "10.0.0.2", "mask": "255.255.255.0", "gateway": "10.0.0.1", "proxy_type": 2},
            **{"proxy_ip": "10.0.0.9", "proxy_port": 3128, "proxy_auth": 1, "m": 2, "user": "ab", "n": 3},
            **{"password": "xyz", "listen_port": 6000},
        },
    ),
    (
        *(0x04, 8, False, "12 3C00 03 0A 0000FF"),
        {
            **{"mode": {"role": 2, "transport": 1}, "redial": 60, "passive_redials": 3},
            **{"idle_disconnect": 10, "online_hours": 0xFF0000},
        },
    ),
    # ERC1..35 are recorded; ERC14, 31 and 35 are important.
    (
        *(0x04, 9, False, "FFFFFFFF07000000 0020004004000000"),
        {"valid": 2**35 - 1, "important": 2**13 + 2**30 + 2**34},
    ),
    (
        *(0x04, 10, False, "0100 0100 0100 62 1E 129078563412 000000000000 04 09 000000000000 10"),
        {
            "n": 1,
            "records": [
                {
                    **{"sequence": 1, "point": 1, "line": {"port": 2, "baud": 3}, "protocol": 30},
                    **{"address": "123456789012", "password": bytes(6), "tariff_count": {"tariffs": 4}},
                    **{"digits": {"decimals_less_1": 1, "integers_less_4": 2}, "collector": "000000000000"},
                    **{"user_class": {"small": 0, "big": 1}},
                }
            ],
        },
    ),
    (
        *(0x04, 11, False, "01 01 02 03 0019"),
        {"n": 1, "records": [{"port": 1, "point": 2, "attribute": 3, "constant": 6400}]},
    ),
    (
        *(0x04, 14, False, "02 01 02 00 C1 02 01 45"),
        {
            "n": 2,
            "groups": [
                {
                    **{"group": 1, "m": 2},
                    "members": [
                        {"point_less_1": 0, "reverse": 0, "subtract": 0},
                        {"point_less_1": 1, "reverse": 1, "subtract": 1},
                    ],
                },
                {"group": 2, "m": 1, "members": [{"point_less_1": 5, "reverse": 1, "subtract": 0}]},
            ],
        },
    ),
    (
        *(0x04, 15, False, "01 01 02 03 81 0A 00150000"),
        {
            "n": 1,
            "groups": [
                {
                    **{"group": 1, "compared": 2, "reference": 3, "relative": 10, "absolute": D(1500)},
                    "method": {"span": 1, "compare_absolute": 1},
                }
            ],
        },
    ),
    # A.2: 123 x 1, and -456 x 0.01.
    (0x04, 17, False, "2381", {"limit": D(123)}),
    (0x04, 17, False, "56D4", {"limit": D("-4.56")}),
    (0x04, 17, False, "EEEE", {"limit": None}),
    (
        *(0x04, 18, False, "E4" + "00" * 10 + "40"),
        {
            "slots": [
                {"first": 0, "second": 1, "third": 2, "fourth": 3},
                *[{"first": 0, "second": 0, "third": 0, "fourth": 0}] * 10,
                {"first": 0, "second": 0, "third": 0, "fourth": 1},
            ]
        },
    ),
    (0x04, 19, False, "85", {"factor": D(-5)}),
    (0x04, 20, False, "79", {"factor": D(79)}),
    (0x04, 21, False, "01" * 16 + "02" * 32 + "04", {"tariff": [1] * 16 + [2] * 32, "tariffs": 4}),
    # 550 li, and 1 yuan (G of A.3).
    (0x04, 22, False, "02 50050000 01000040", {"m": 2, "price": [D(550), D("1E+3")]}),
    (
        *(0x04, 25, False, "6400 2800 0022 15 003003 06"),
        {
            **{"pt": 100, "ct": 40, "rated_voltage": D("220.0"), "rated_current": D("1.5")},
            **{"rated_load": D("3.3000"), "connection": {"wiring": 2, "phase": 1}},
        },
    ),
    (
        *(0x04, 26, False),
        "5423 4620 2013 4026 05 5000 6017 06 5080 006000 07 0000 005000 08 0000 501280 09 0000 "
        "003003 0A 0000 000003 0B 0000 5001 0C 0000 0003 0D 0000 1E",
        {
            **{"voltage_high": D("235.4"), "voltage_low": D("204.6"), "phase_open": D("132.0")},
            **{"overvoltage": D(264), "overvoltage_duration": 5, "overvoltage_recovery": D("5.0")},
            **{"undervoltage": D(176), "undervoltage_duration": 6, "undervoltage_recovery": D("-5.0")},
            **{"overcurrent": D(6), "overcurrent_duration": 7, "overcurrent_recovery": D(0)},
            **{"rated_current": D(5), "rated_current_duration": 8, "rated_current_recovery": D(0)},
            **{"zero_current": D("-1.250"), "zero_current_duration": 9, "zero_current_recovery": D(0)},
            **{"power_high_high": D("3.3"), "power_high_high_duration": 10},
            **{"power_high_high_recovery": D(0), "power_high": D(3), "power_high_duration": 11},
            **{"power_high_recovery": D(0), "voltage_unbalance": D(15), "voltage_unbalance_duration": 12},
            **{"voltage_unbalance_recovery": D(0), "current_unbalance": D(30)},
            **{"current_unbalance_duration": 13, "current_unbalance_recovery": D(0), "voltage_loss": 30},
        },
    ),
    (0x04, 28, False, "5008 0009", {"limit_1": D(85), "limit_2": D(90)}),
    (0x04, 29, False, "303132333435363738394142", {"number": "0123456789AB"}),
    (0x04, 31, False, "01 129078563412", {"n": 1, "address": ["123456789012"]}),
    (
        *(0x04, 33, False, "01 1F 2900 01000080 3000 3C 401600 02 0001 0005 0020 0024"),
        {
            "n": 1,
            "ports": [
                {
                    "port": 31,
                    "control": {
                        **{"no_automatic_reading": 1, "key_accounts_only": 0, "broadcast_freeze": 0},
                        **{"broadcast_clock": 1, "search_meters": 0, "read_status": 1},
                    },
                    **{"days": 0x80000001, "time": "00:30", "interval": 60, "clock_at": "00 16:40", "m": 2},
                    "periods": [{"start": "01:00", "end": "05:00"}, {"start": "20:00", "end": "24:00"}],
                }
            ],
        },
    ),
    (
        *(0x04, 34, False, "01 1F CB 80250000"),
        {"n": 1, "ports": [{"port": 31, "control": LINE_9600, "baud": 9600}]},
    ),
    (0x04, 35, False, "02 0100 F807", {"n": 2, "sequence": [1, 2040]}),
    (
        *(0x04, 37, False, "03 CB 14 0A 02 1E 82 1403 3263 1403 3363"),
        {
            **{"port": 3, "control": LINE_9600, "message_timeout": 20, "byte_timeout": 10, "retries": 2},
            **{"period": 30, "role": {"n": 2, "cascaded": 1}},
            "terminals": [{"area": "0314", "address": 0x6332}, {"area": "0314", "address": 0x6333}],
        },
    ),
    # Eight terminals: the number is D3-D0.
    (
        *(0x04, 37, False, "01 6B 14 0A 00 05 08" + "14030100" * 8),
        {
            **{"port": 1, "control": LINE_9600 | {"baud_code": 3}, "message_timeout": 20},
            **{"byte_timeout": 10, "retries": 0, "period": 5, "role": {"n": 8, "cascaded": 0}},
            "terminals": [{"area": "0314", "address": 1}] * 8,
        },
    ),
    (
        *(0x04, 38, False, "01 02 00 01 06 03 02 01 80"),
        {
            **{"big": 1, "m": 2},
            "sets": [{"small": 0, "n": 1, "masks": [6]}, {"small": 3, "n": 2, "masks": [1, 0x80]}],
        },
    ),
    # Schemes 1 and 3; of the first, slots 1 and 2 with 200 and 150 kW; of the third, slot 8 with 50.0 kW.
    (
        *(0x04, 41, False, "05 03 0082 5081 80 00A5"),
        {
            "schemes": 5,
            "plans": [{"slots": 3, "limits": [D(200), D(150)]}, {"slots": 0x80, "limits": [D("50.0")]}],
        },
    ),
    (
        *(0x04, 42, False, "0082 3018 05 7E"),
        {"limit": D(200), "start": "18:30", "duration": 5, "weekdays": 0x7E},
    ),
    (
        *(0x04, 44, False, "011126 301126 0082"),
        {"start": date(2026, 11, 1), "end": date(2026, 11, 30), "limit": D(200)},
    ),
    (0x04, 46, False, "20000040 75", {"limit": D("20E+3"), "alarm": D(75)}),
    (
        *(0x04, 47, False, "07000000 AA 00100000 00010000 50000010"),
        {"order": 7, "mode": 0xAA, "amount": D(1000), "alarm": D(100), "trip": D(-50)},
    ),
    (0x04, 59, False, "12 30 04 05", {"over": D("1.2"), "fly": D(3), "stop": 4, "deviation": 5}),
    (
        *(0x04, 60, False, "5000 4000 2000" + "3000" * 17 + "3100" + "0005" + "5000" * 17 + "5180"),
        {
            **{"voltage_total": D(5), "voltage_odd": D(4), "voltage_even": D(2)},
            **{f"voltage_{harmonic}": D(3) for harmonic in range(2, 19)},
            **{"voltage_19": D("3.1"), "current_total": D(5)},
            **{f"current_{harmonic}": D("0.50") for harmonic in range(2, 19)},
            "current_19": D("-0.51"),
        },
    ),
    (
        *(0x04, 65, False, "41 000000245126 01 02 01010110 03010114"),
        {
            **{"period": {"count": 1, "unit": 1}, "base": datetime(2026, 11, 24), "ratio": 1, "n": 2},
            "identifiers": [((1, 129),), ((1, 161), (2, 161))],
        },
    ),
    (0x04, 67, False, "55", {"flag": 0x55}),
    (
        *(0x04, 73, False, "81 3080" + "00 0080" * 15),
        {"groups": [{"attribute": 0x81, "capacity": D(30)}, *[{"attribute": 0, "capacity": D(0)}] * 15]},
    ),
    (
        *(0x04, 74, False, "5009 005001 005000 3C 05"),
        {
            **{"power_factor": D(95), "switch_on": D("1.5"), "switch_off": D("0.5")},
            **{"delay": 60, "interval": 5},
        },
    ),
    (0x04, 81, False, "0481 2081", {"start": D(104), "end": D(120)}),
    (0x04, 89, False, "1403 3263", {"area": "0314", "address": 0x6332}),
    (0x04, 90, False, "3F 03", {"first": 63, "second": 3}),
]

CONTROL: list[Case] = [
    (0x05, 1, False, "52", {"param": {"duration": 2, "alarm_delay": 5}}),
    (0x05, 2, False, "", {}),
    (0x05, 9, False, "07 02", {"slots": 7, "scheme": 2}),
    (
        *(0x05, 12, False, "0A 85 05 02 01 02 03 04"),
        {"slide": 10, "factor": D(-5), "delay": 5, "duration": 2, "alarms": [1, 2, 3, 4]},
    ),
    (0x05, 25, False, "30", {"duration": 48}),
    (0x05, 25, False, "", {}),
    (0x05, 31, False, "30 15 08 24 51 26", {"clock": datetime(2026, 11, 24, 8, 15, 30)}),
    (
        *(0x05, 32, False, "21 06 CDA3B5E73130"),
        {"message": {"number": 1, "kind": 2}, "length": 6, "text": "停电10"},
    ),
    (0x05, 41, False, "0180", {"groups": 0x8001}),
    (0x05, 52, False, "1F", {"port": 31}),
    (0x06, 1, False, "00112233445566778899AABBCCDDEEFF", {"data": bytes(range(0, 256, 17))}),
]

CONFIGURATION: list[Case] = [
    (
        *(0x09, 1, True),
        "41424344 4D30303031000000 56312E30 150126 4342313233343536373839 31333736 56322E31 010220",
        {
            **{"vendor": "ABCD", "device": "M0001", "software": "V1.0", "software_date": date(2026, 1, 15)},
            **{"capacity": "CB123456789", "protocol": "1376", "hardware": "V2.1"},
            "hardware_date": date(2020, 2, 1),
        },
    ),
    (
        *(0x09, 2, True, "02 04 00 02 0004 0004 0008 001122334455 01 0240 80250000 2000 0001 0002"),
        {
            **{"pulses": 2, "inputs": 4, "dc": 0, "outputs": 2, "meters": 1024, "rx_buffer": 1024},
            **{"tx_buffer": 2048, "mac": bytes.fromhex("001122334455"), "n": 1},
            "ports": [{"word": 0x4002, "max_baud": 9600, "devices": 32, "rx_buffer": 256, "tx_buffer": 512}],
        },
    ),
    (0x09, 4, True, "02 FF 7F", {"n": 2, "masks": [0xFF, 0x7F]}),
    # Big classes 0 and 2.
    (
        *(0x09, 6, True, "0500 02 FF 01 01 80"),
        {"classes": 5, "sets": [{"n": 2, "masks": [0xFF, 1]}, {"n": 1, "masks": [0x80]}]},
    ),
    (0x0A, 10, False, "0200 0100 F807", {"n": 2, "sequence": [1, 2040]}),
    (0x0A, 11, False, "02 01 02", {"n": 2, "port": [1, 2]}),
    (0x0A, 14, False, "01 08", {"n": 1, "group": [8]}),
    (0x0A, 33, False, "02 02 1F", {"n": 2, "port": [2, 31]}),
    (0x0A, 39, False, "01 02 00 03", {"big": 1, "n": 2, "small": [0, 3]}),
    (0x0A, 1, False, "", {}),
    (0x0A, 35, True, "01 0500", {"n": 1, "sequence": [5]}),
    (0x0B, 1, False, "", {}),
    (0x0B, 2, False, "3005241126", {"start": datetime(2026, 11, 24, 5, 30)}),
]

FORWARDING: list[Case] = [
    (
        *(0x0F, 1, False, "01 01 00 0200 01000000 0300 AABBCC"),
        {
            **{"file": 1, "attribute": 1, "command": 0, "segments": 2, "segment": 1, "length": 3},
            "data": b"\xaa\xbb\xcc",
        },
    ),
    (0x0F, 1, True, "FFFFFFFF", {"segment": 0xFFFFFFFF}),
    (
        *(0x10, 1, False, "02 6B 64 BC 0300 681116"),
        {
            **{"port": 2, "control": LINE_9600 | {"baud_code": 3}, "byte_timeout": 0xBC, "k": 3},
            **{"message_timeout": {"value": 100, "seconds": 0}, "content": b"\x68\x11\x16"},
        },
    ),
    (0x10, 1, True, "1F 0000", {"port": 31, "k": 0, "content": b""}),
    (
        *(0x10, 9, False, "1F 01 010000000000 129078563412 01 00000100"),
        {
            **{"port": 31, "n": 1, "relays": ["000000000001"], "target": "123456789012", "kind": 1},
            "di": bytes.fromhex("00000100"),
        },
    ),
    (
        *(0x10, 9, True, "1F 129078563412 05 08 00000100 78563412"),
        {
            **{"port": 31, "target": "123456789012", "result": 5, "length": 8},
            **{"di": bytes.fromhex("00000100"), "data": bytes.fromhex("78563412")},
        },
    ),
    (
        *(0x10, 10, False, "1F 00 129078563412 55 04 02000000"),
        {
            **{"port": 31, "n": 0, "relays": [], "target": "123456789012", "flag": 0x55, "k": 4},
            "password": bytes.fromhex("02000000"),
        },
    ),
    (
        *(0x10, 11, True, "1F 129078563412 00 AA"),
        {"port": 31, "target": "123456789012", "result": 0, "flag": 0xAA},
    ),
    (0x10, 13, False, "01", {"kind": 1}),
    (
        *(0x10, 13, True, "01 0200 0100 0102030405060708"),
        {"kind": 1, "total": 2, "n": 1, "meters": [bytes(range(1, 9))]},
    ),
]

CASES = [*LINK, *PARAMETERS, *CONTROL, *CONFIGURATION, *FORWARDING]
