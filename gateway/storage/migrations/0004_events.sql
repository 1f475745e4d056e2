-- What terminals noticed (AFN 0E): stored once each, with a mark for those that somebody must look at.

-- What the numbers mean, for people and dashboards; the program's table is held equal to this one by a test.
CREATE TABLE event_code (
    erc smallint PRIMARY KEY CHECK (erc BETWEEN 0 AND 255),
    name_en text NOT NULL,
    name_zh text NOT NULL,
    needs_person boolean NOT NULL
);
INSERT INTO event_code VALUES
    (1, 'Initialisation or version change', '数据初始化和版本变更', false), (2, 'Parameters lost', '参数丢失', false),
    (3, 'Parameters changed', '参数变更', true), (4, 'State input changed', '状态量变位', false),
    (5, 'Remote trip', '遥控跳闸', false), (6, 'Trip by power control', '功控跳闸', false),
    (7, 'Trip by energy control', '电控跳闸', false), (8, 'Meter parameters changed', '电能表参数变更', true),
    (9, 'Current circuit fault', '电流回路异常', false), (10, 'Voltage circuit fault', '电压回路异常', false),
    (11, 'Phase order fault', '相序异常', false), (12, 'Meter clock off', '电能表时间超差', true),
    (13, 'Meter fault', '电表故障信息', false), (14, 'Terminal power off and on', '终端停/上电', true),
    (15, 'Harmonic limit', '谐波越限', false), (16, 'DC analog limit', '直流模拟量越限', false),
    (17, 'Voltage or current unbalance', '电压/电流不平衡度越限', false), (18, 'Capacitor lock', '电容器投切自锁', false),
    (19, 'Purchase settings', '购电参数设置', false), (20, 'Authentication failed', '消息认证错误', true),
    (21, 'Terminal fault', '终端故障', false), (22, 'Energy difference limit', '有功总电能量差动越限', false),
    (23, 'Energy control alarm', '电控告警', false), (24, 'Voltage limit', '电压越限', false),
    (25, 'Current limit', '电流越限', false), (26, 'Apparent power limit', '视在功率越限', false),
    (27, 'Meter reading fell', '电能表示度下降', false), (28, 'Meter energy excess', '电能量超差', false),
    (29, 'Meter runs away', '电能表飞走', false), (30, 'Meter stands still', '电能表停走', false),
    (31, 'Meter read failed', '终端485抄表失败', true), (32, 'Traffic limit', '终端与主站通信流量超门限', false),
    (33, 'Meter status word changed', '电能表运行状态字变位', false), (34, 'CT fault', 'CT异常', false),
    (35, 'Unknown meter found', '发现未知电表', true), (36, 'Control output circuit changed', '控制输出回路开关接入状态量变位', false),
    (37, 'Meter cover opened', '电能表开表盖', false), (38, 'Terminal-block cover opened', '电能表开端钮盒', false),
    (39, 'Meter read failed, collective', '补抄失败', false), (40, 'Magnetic field', '磁场异常', false),
    (41, 'Clock set', '对时', false), (42, 'Theft alarm', '窃电告警', false);

CREATE TABLE event_class (code smallint PRIMARY KEY, label text NOT NULL UNIQUE, name_zh text NOT NULL);
INSERT INTO event_class VALUES (1, 'important', '重要事件'), (2, 'normal', '一般事件');

-- pointer wraps at 256, so the bytes are part of the key: the same record sent again is the same row, another one at
-- the same place is not. occurred_at is by the terminal's clock, which may be wrong; received_at is by ours.
CREATE TABLE event (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL,
    occurred_at timestamptz,
    terminal_id int NOT NULL REFERENCES terminal,
    class smallint NOT NULL REFERENCES event_class,
    pointer smallint NOT NULL CHECK (pointer BETWEEN 0 AND 255),
    erc smallint NOT NULL CHECK (erc BETWEEN 0 AND 255),
    pn smallint,
    starts boolean,
    pushed boolean NOT NULL,
    contested boolean NOT NULL,
    needs_person boolean NOT NULL,
    detail jsonb NOT NULL,
    reason text,
    raw bytea NOT NULL,
    acknowledged_at timestamptz,
    acknowledged_by text,
    note text NOT NULL DEFAULT '',
    CONSTRAINT event_once UNIQUE (terminal_id, class, pointer, erc, raw),
    CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL))
);
CREATE INDEX ON event (terminal_id, event_id);
CREATE INDEX ON event (received_at);
CREATE INDEX event_worklist ON event (event_id) WHERE needs_person AND acknowledged_at IS NULL;

-- Up to where each memory has been fetched: the next pointer to ask for. No row: nothing yet.
CREATE TABLE event_pointer (
    terminal_id int NOT NULL REFERENCES terminal,
    class smallint NOT NULL REFERENCES event_class,
    pointer smallint NOT NULL CHECK (pointer BETWEEN 0 AND 255),
    moved_at timestamptz NOT NULL,
    PRIMARY KEY (terminal_id, class)
) WITH (fillfactor = 70);
