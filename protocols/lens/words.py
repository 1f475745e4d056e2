"""The Chinese of the words that the protocol packages give in English, and names of codes in both."""

from __future__ import annotations

from functools import cache

from protocols.dlt645 import flags

Words = tuple[str, str]
"""English, Chinese."""

AFNS: dict[int, Words] = {
    0x00: ("confirm or deny", "确认/否认"),
    0x01: ("reset", "复位"),
    0x02: ("link test", "链路接口检测"),
    0x03: ("relay station", "中继站命令"),
    0x04: ("set parameters", "设置参数"),
    0x05: ("control", "控制命令"),
    0x06: ("authentication and keys", "身份认证及密钥协商"),
    0x08: ("ask cascaded terminals", "请求被级联终端主动上报"),
    0x09: ("terminal configuration", "请求终端配置"),
    0x0A: ("query parameters", "查询参数"),
    0x0B: ("task data", "请求任务数据"),
    0x0C: ("class 1 data: present", "请求1类数据"),
    0x0D: ("class 2 data: history", "请求2类数据"),
    0x0E: ("class 3 data: events", "请求3类数据"),
    0x0F: ("file transfer", "文件传输"),
    0x10: ("data forwarding", "数据转发"),
}

# By (PRM, function code).
SERVICES: dict[tuple[bool, int], Words] = {
    (True, 1): ("reset: send, confirm", "复位命令"),
    (True, 4): ("user data: send, no reply", "用户数据，发送/无回答"),
    (True, 9): ("link test: request", "链路测试"),
    (True, 10): ("level-1 data request", "请求1级数据"),
    (True, 11): ("level-2 data request", "请求2级数据"),
    (False, 0): ("confirm", "认可"),
    (False, 8): ("user data: respond", "用户数据，响应帧"),
    (False, 9): ("deny: nothing to send", "否认：无所召唤的数据"),
    (False, 11): ("link state", "链路状态"),
}

SEGMENTS: dict[tuple[bool, bool], Words] = {
    (True, True): ("single frame", "单帧"),
    (True, False): ("first of several", "多帧：第一帧"),
    (False, False): ("middle of several", "多帧：中间帧"),
    (False, True): ("last of several", "多帧：结束帧"),
}

UNIT_ERRORS: dict[int, Words] = {
    0: ("done", "正确"),
    1: ("other error", "其他错误"),
    2: ("meter address repeated", "表地址重复"),
}

_PAIRS = """
security authentication=安全认证
broadcast time=广播校时
read data=读数据
read follow-up=读后续数据
read address=读通信地址
write data=写数据
write address=写通信地址
freeze=冻结命令
change speed=更改通信速率
change password=修改密码
clear demand=最大需量清零
clear meter=电表清零
clear events=事件清零
relay control=跳合闸、报警、保电
multi-function output=多功能端子输出
re-read=重读数据
trip=跳闸
close permitted=合闸允许
trip, then close by itself=跳闸后自动恢复（直接合闸）
trip, then permit closing=跳闸后自动恢复（合闸允许）
alarm on=报警
alarm off=报警解除
keep-power on=保电
keep-power off=保电解除
cipher=密文
random=随机数
diversifier=分散因子
minutes=身份认证有效时长（分钟）
mac=MAC
mac_1=MAC1
mac_2=MAC2
esam=ESAM序列号
customer=客户编号
money=购电金额
count=购电次数
key_info=密钥信息
key_cipher=密钥密文
meter=表号
length=长度
offset=起始地址
file=文件标识
directory=目录标识
open=断开
closed=闭合
"""


@cache
def _dictionary() -> dict[str, str]:
    pairs = dict(line.split("=", 1) for line in _PAIRS.strip().splitlines())
    return {**flags.error_words(), **pairs}


def chinese(english: str) -> str:
    """The Chinese of one of the packages' words; "" where none is known."""
    return _dictionary().get(english, "")
