"""Tables that the validators look up: top-level domains, lengths of phone numbers, addresses common in examples."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Top-level domains in use with more than two letters.
GENERIC = _words(
    "com org net edu gov mil int info biz name pro aero coop museum jobs mobi travel cat tel asia post xxx arpa "
    "app dev page cloud online site website tech store shop blog space email agency digital systems solutions "
    "software services network company group media world life live news today global center xyz club work works "
    "codes engineering design studio team tools zone academy education university school institute foundation "
    "health bank finance capital berlin london paris nyc wien hamburg koeln bayern swiss science llc ltd"
)
# ISO 3166-1 codes that are delegated as domains, and .eu, .uk, .su, .ac.
COUNTRIES = _words(
    "ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd "
    "cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gd ge "
    "gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh "
    "ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw "
    "mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb "
    "sc sd se sg sh si sk sl sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk "
    "us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw"
)
TOP_LEVEL = GENERIC | COUNTRIES
DOCUMENTATION = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost)\Z")  # RFC 2606
# Public DNS resolvers, and addresses that people type as examples (BigCode keeps 14 of them).
RESOLVERS = _words(
    "8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 9.9.9.9 149.112.112.112 208.67.222.222 208.67.220.220 4.2.2.1 4.2.2.2 "
    "5.6.7.8 4.3.2.1 11.22.33.44 2001:4860:4860::8888 2001:4860:4860::8844 2606:4700:4700::1111 2606:4700:4700::1001 "
    "2620:fe::fe 2620:fe::9"
)
# Short words of camelCase names. Any other part of fewer than three letters is a sign of a generated value.
SHORT_WORDS = _words("Id ID To Of By In On At My Is As Or If No Up Do Go V v")


def _lengths(text: str) -> dict[str, range]:
    """Country code -> allowed number of digits after it, from lines `minimum maximum code code ...`."""
    rows = (line.split() for line in text.split("\n") if line.strip())
    return {code: range(int(row[0]), int(row[1]) + 1) for row in rows for code in row[2:]}


# Assigned country codes and how many digits follow them (ITU-T E.164 and its list of codes; the national plans).
PHONE_LENGTHS = _lengths("""
4 7 683 690
5 5 247 500 682
5 7 290 676 677 678 688
6 6 298 299 672 687
6 7 597 685
6 8 386
6 9 40 46 252 376 421 508 681
6 10 53 95 98 880
6 11 49 352 375
6 12 39 381
6 13 43
7 7 238 239 246 248 269 291 297 592 673 674 680 691 692
7 8 241 599 670 675 853 961 965 975
7 9 220 231 263 265 354 355 385 423 967 968
7 10 230 243 254 267 353 372 960
7 11 501 503 507 595 679 974
7 12 62 82 882 883 971 972
8 8 45 47 216 222 223 226 227 228 232 235 236 253 257 266 268 350 356 357 370 371 373 374 389 505 509 800 808 973 993
8 9 27 32 36 51 213 224 233 237 250 258 264 377 382 387 591 689 852 886 962 963
8 10 20 60 63 64 66 81 84 91 359 378 506 598 850 855 856 964 970 976
8 11 57 65 92 358 502 504 593 977
8 12 383
9 9 31 33 34 41 48 61 93 94 211 212 218 221 240 242 244 245 249 251 255 256 260 261 262 351 420 590 594 596 686 979
9 9 992 994 995 998
9 10 44 380 881 966 996
9 11 55 56 86 870
10 10 1 7 52 58 225 229 234
10 11 54 90
10 12 30 878 888
""")
# Common pairs of letters: 80 % of the pairs in the words of program text are among them, 25 % of random pairs.
_AFTER = _words(
    "a:bcdgilmnprst b:ail c:aehiklortu d:aeiosu e:acdefglmnprstvx f:efior g:eir h:aeio i:abcdefglmnoprstvz k:e "
    "l:adeilosty m:aeiop n:acdefgiost o:cdlmnoprstuw p:aeiloprt q:u r:acdeimorsty s:acehiopstu t:acehiorstuy "
    "u:belmnprst v:aei w:ai x:t y:p z:e"
)
COMMON_PAIRS = frozenset(pair[0] + second for pair in _AFTER for second in pair[2:])
