r"""Lines and file names with something of the house in them: kind, what must not be left, the text. `~` parts the columns."""

from __future__ import annotations

from typing import NamedTuple


class Plant(NamedTuple):
    """One planted line: the kind of thing in it, what must not be left of it, and the line."""

    kind: str
    secrets: tuple[str, ...]
    text: str


_LINES = r"""
wwn ~ 5001438016f7a2b4 ~ lpfc0: remote port WWPN 0x5001438016f7a2b4 lost
wwn ~ 5006016039a01f2c ~ FC target 5006016039a01f2c logged out
wwn ~ 50060e8007e2a513 ~ qlnativefc: vmhba2: port 50:06:0e:80:07:e2:a5:13 logged in
wwn ~ 21000024ff3d9e11 ~ wwpn=21000024ff3d9e11 state=online
wwn ~ 10000090fa53b1c7 ~ Adapter vmhba3 0x10000090FA53B1C7 link up
nqn ~ storehouse9 ~ nvme: connect nqn.2014-08.net.storehouse9:subsys.1742
mac ~ 0050.569a.bef0 ~ switch learned 0050.569a.bef0 on port 3
mac ~ 0050569a1cd7 ~ Client mac 0050569a1cd7 has a new lease
mac ~ 00c0ffeb2e71 ~ mac=00C0FFEB2E71 vlan=12
mac ~ a4bf-012f-9c3d ~ arp entry a4bf-012f-9c3d aged out
mac ~ 00:50:56:9a:77:e1 ~ vmk0: 00:50:56:9a:77:e1 takes over
serial ~ CZJ61503RT ~ Chassis S/N: CZJ61503RT
serial ~ USE4127KPW ~ power supply SN=USE4127KPW rev 2
serial ~ CZ3218XKQ7 ~ Serial Number......: CZ3218XKQ7
serial ~ MXQ5190H2V ~ System Serial Number: MXQ5190H2V
serial ~ PDNLH0BRH7 ~ drive bay 3 serial# PDNLH0BRH7 failed
serial ~ 9ZR7TX1 ~ Service Tag: 9ZR7TX1
serial ~ AC-4471-QX ~ Asset Tag............ AC-4471-QX
serial ~ WD-WCC4E1294873 ~ SerialNumber="WD-WCC4E1294873"
user ~ tbrunner ~ sshd[4411]: pam_unix(sshd:session): session opened for user tbrunner by (uid=0)
user ~ kmeili ~ sshd[4412]: pam_unix(sshd:session): session closed for user kmeili
user ~ rfrey ~ Failed password for invalid user rfrey from 10.7.7.9 port 51122 ssh2
user ~ hzbinden ~ Invalid user hzbinden from 10.7.7.9
user ~ pamrein ~ login: pamrein logged in on tty1
user ~ gwidmer ~ pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser=gwidmer rhost=10.9.4.1
user ~ nstucki ~ useradd[991]: new user: name=nstucki, UID=1001, GID=100
user ~ cgrob ~ uid=1004(cgrob) gid=100(users)
passwd file ~ mluethi, Martin Luethi ~ mluethi:x:1005:100:Martin Luethi:/home/mluethi:/bin/sh
user ~ dhuber ~ Event 114 : User dhuber@10.8.1.2 logged in as VI Client
user ~ jkeller ~ password changed for jkeller
sudo ~ vhofer ~ sudo:   vhofer : TTY=pts/0 ; PWD=/tmp ; USER=root ; COMMAND=/bin/ls
sudo ~ bgraf ~ su: (to root) bgraf on /dev/pts/1
sudo ~ egerber ~ sudo: pam_unix(sudo:session): session opened for user root by egerber(uid=1001)
domain user ~ KANTONX, spfister ~ Login by KANTONX\spfister accepted
domain user ~ nordwerk, wthoma ~ owner is nordwerk\\wthoma
domain user ~ KANTONY, nschmid ~ [vpxa] task for KANTONY\nschmid done
domain user ~ abaumann, westbau ~ principal abaumann@westbau.ag denied
etc hosts ~ zrhmgmt7 ~ 10.44.3.7	zrhmgmt7
etc hosts ~ blnfs2, blnfs2.nord.werk ~ 10.44.3.8   blnfs2.nord.werk blnfs2
etc hosts ~ gvabkp, oldbkp ~ 172.19.4.5 gvabkp oldbkp # backup
etc hosts ~ lsnode ~ fd00:12::7 lsnode
fqdn ~ vcsa.kantonspital.ch ~ connection to vcsa.kantonspital.ch timed out
fqdn ~ srv7.stadtwerk.de ~ lookup srv7.stadtwerk.de failed
fqdn ~ syslog3.bergbahn.swiss ~ Sending to syslog3.bergbahn.swiss
fqdn ~ esx12.prod.hospital.cloud ~ heartbeat of esx12.prod.hospital.cloud is late
fqdn ~ mx1.uni-lindau.ac.uk ~ relay mx1.uni-lindau.ac.uk refused
fqdn ~ muehlebach.at ~ see muehlebach.at
fqdn ~ node3.dc2.bigbank ~ cannot resolve node3.dc2.bigbank
fqdn ~ kuenzli-bau.com ~ mirror.kuenzli-bau.com unreachable
fqdn ~ filer.wyss.intra ~ probe filer.wyss.intra ok
vmdk ~ ERPDB07 ~ opened ERPDB07_1-flat.vmdk
vmdk ~ PAYROLL3 ~ snapshot PAYROLL3-000002-delta.vmdk grows
vmdk ~ lohnserver ~ lock on lohnserver.vmx is held
vmdk ~ CITRIX44 ~ swap CITRIX44-5d3f1a2b.vswp missing
vmdk ~ klinikdb ~ "path": "klinikdb-Snapshot14.vmsn"
vmdk ~ ARCHIV2 ~ [pool_9] ARCHIV2/ARCHIV2.nvram
vm ~ SAPQAS02 ~ Vm 'SAPQAS02' was powered off
vm ~ oracle prod 7 ~ VM "oracle prod 7" needs consolidation
vm ~ radiologie ~ Virtual machine radiologie on host is unreachable
vm ~ PACS11 ~ vmname=PACS11 state=on
vm ~ laborsys ~ vmotion of laborsys failed
vm ~ Fibu Alt ~ displayName = "Fibu Alt"
vm ~ mrt-steuer ~ guest mrt-steuer has not reported heartbeats
vm ~ wsus_ost ~ Creating snapshot of wsus_ost, memory=false
datastore ~ silber_07 ~ Datastore silber_07 is full
datastore ~ NL-SAS-Ost ~ datastore 'NL-SAS-Ost' lost
datastore ~ tierzwei ~ Volume tierzwei has 2 % free
datastore ~ kupfer3 ~ /vmfs/volumes/kupfer3/iso/
datastore ~ bronze-lun9 ~ File system [bronze-lun9, 52aa01b2] mounted
datastore ~ vsan_west ~ ds:///vmfs/volumes/vsan_west/
network ~ DMZ-Nord ~ Port group DMZ-Nord not found
network ~ Klinik VLAN 80 ~ portgroup "Klinik VLAN 80" added
network ~ Prod-Bern-120 ~ Prod-Bern-120            vSwitch0                    3      120
network ~ dvPG-Labor ~ dvportgroup: dvPG-Labor
network ~ vDS-Ost ~ vmnic2 joined DVS vDS-Ost
network ~ Gaeste-WLAN ~ network 'Gaeste-WLAN' is isolated
network ~ PACS-Net ~ ethernet0.networkName = "PACS-Net"
nfs ~ isofarm ~ NFS mount nas.isofarm.lan:/vol/iso_archiv
nfs ~ iso_archiv ~ NFS mount 10.6.6.6:/vol/iso_archiv failed
nfs ~ finanz_q3 ~ remote share /exports/finanz_q3 stale
nfs ~ nasbox9, kunde_a ~ nas_ds    nasbox9    /vol/kunde_a   true  true  false
nfs ~ vorlagen2 ~ nfsclient: server 10.6.6.7 share /ifs/data/vorlagen2
unc ~ smbkiste, lohn$ ~ \\smbkiste\lohn$ cannot be opened
annotation ~ Herr Zaugg, intern 4711 ~ annotation = "Herr Zaugg anrufen, intern 4711"
annotation ~ Buchhaltung ~ "annotation": "Server der Buchhaltung"
annotation ~ Sandra Lanz ~ Notes: Sandra Lanz bestellt
annotation ~ Projekt Falke ~ <annotation>Projekt Falke</annotation>
snmp place ~ Rechenzentrum Thun ~ sysLocation Rechenzentrum Thun
snmp place ~ Beat Moser ~ syscontact = Beat Moser
licence ~ 4J21K-8LH9M-07QX3-0A9KP-C2N4T ~ License key 4J21K-8LH9M-07QX3-0A9KP-C2N4T expires
licence ~ HN0XM-4F1E7-98C53 ~ serial_keys: HN0XM-4F1E7-98C53-0R1U6-1ZQ2K
licence ~ M502N-4E3D1 ~ vpxLicense "M502N-4E3D1-Z8X2L-0KC82-9T31A"
password ~ Gl3tscher! ~ password=Gl3tscher!
password ~ sommer2014 ~ "password": "sommer2014"
password ~ hunter22x ~ passwd hunter22x set by script
url password ~ b4dgeR ~ curl -u backup:b4dgeR https://x/
url password ~ s3sam ~ ftp://upload:s3sam@files/
password ~ Tr0ub4dor ~ mount -o username=scan,pass=Tr0ub4dor //x
password ~ geheim99 ~ PWD: geheim99
password ~ zucker-ohr ~ --password zucker-ohr --force
password ~ chapgeheim1 ~ CHAP secret = chapgeheim1
token ~ 6a7f9XkQz ~ api_key: 6a7f9XkQz
password ~ qwErtz77 ~ <password>qwErtz77</password>
header ~ dXNlcjpwYXNz ~ Authorization: Basic dXNlcjpwYXNz
token ~ f00dfacef00d ~ session token: f00dfacef00d
header ~ kTb9xQ2rLm ~ Cookie: vmware_soap_session="kTb9xQ2rLm"
password hash ~ $6$Q9aXk2 ~ root:$6$Q9aXk2$h1Jk92lmNpoQrstUvwXyz0123456789abcdEFGH:16000:0:99999:7:::
community ~ berg0tief ~ community=berg0tief
community ~ kommun4l ~ rocommunity kommun4l
community ~ tr4pper ~ communities: ["tr4pper"]
community ~ fall3n ~ Targets: 10.5.5.5@162/fall3n
ssh key ~ AAAAB3NzaC1yc2EAAAADAQABAAABAQC7h, ugruber ~ ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7h+9/2Q== ugruber@werkstatt
ssh key ~ AAAAC3NzaC1lZDI1NTE5AAAAIGk3 ~ ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk3o0 backup
fingerprint ~ nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8 ~ key RSA SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8
fingerprint ~ 16:27:ac:a5:76:28:2d:36 ~ fingerprint 16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48
private key ~ MIIEowIBAAKCAQEAx7 ~ -----BEGIN RSA PRIVATE KEY----- MIIEowIBAAKCAQEAx7 -----END RSA PRIVATE KEY-----
token ~ eyJhbGciOiJIUzI1NiJ9 ~ got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc123DEF456ghi
token ~ AKIAIOSFODNN7EXAMPLQ ~ s3 key AKIAIOSFODNN7EXAMPLQ
ldap ~ Urs Tanner, Werkhof, nordag ~ bind CN=Urs Tanner,OU=Werkhof,DC=nordag,DC=ch
ldap ~ lkunz, Filiale ~ base uid=lkunz,ou=Filiale,o=x
ldap ~ VI-Admins-Ost ~ memberOf: CN=VI-Admins-Ost,CN=Users,DC=x
ldap ~ mathysag ~ ldap search base dc=mathysag,dc=local
certificate ~ esxprod88 ~ subject=/C=CH/O=Isler AG/CN=esxprod88
certificate ~ Isler AG ~ issuer: C=CH, O=Isler AG, CN=x
certificate ~ vcenterwest ~ X509v3 Subject Alternative Name: DNS:vcenterwest
certificate ~ ca-root-gmbh ~ Issuer: CN=ca-root-gmbh
ipv4 ~ 10.61.7.3 ~ agent v10.61.7.3 answered
ipv4 ~ 192.168.51.9 ~ via v 192.168.51.9
ipv4 ~ 10.61.7.4 ~ peer 10.61.7.4:902 refused
ipv4 ~ 10.61.7.5 ~ IP 10.61.7.5.443 > 10.61.7.6.51234: tcp
ipv4 ~ 10-61-7-15 ~ host ip-10-61-7-15 is down
ipv4 ~ 172_20_3_4 ~ lease 172_20_3_4 expired
ipv4 ~ 0a3d0721 ~ ipaddr=0x0a3d0721 mask=0xffffff00
ipv4 ~ c0a8330b ~ remote 0xc0a8330b closed
ipv4 ~ 10.61.7.13 ~ release 10.61.7.13 by dhcp
ipv4 ~ 81.6.44.201 ~ NTP server 81.6.44.201 stratum 2
ipv4 ~ 10.61.9.0 ~ route 10.61.9.0/24
ipv6 ~ fd12:8a1::4f ~ bound fd12:8a1::4f
ipv6 ~ fe80::250:56ff:fe9a:11d2 ~ neighbour fe80::250:56ff:fe9a:11d2%vmk0
double url ~ klara01 ~ GET /folder?vm=%256Blara01&x=1 for klara01.vmx
double url ~ tessin mail ~ displayName = "tessin mail" /folder/tessin%2520mail/x
double url ~ uri store 5 ~ ds=%252Fvmfs%252Fvolumes%252Furi%2520store%25205%252Fx
mail ~ petra.suter@werkdorf.ch ~ mail to petra.suter@werkdorf.ch bounced
mail ~ ops-team ~ notify <ops-team@kraftwerk.swiss>
host ~ bernesx09 ~ vmotion to host bernesx09 failed
host ~ zugesx03 ~ "hostName": "zugesx03"
host ~ lugnode5 ~ FDM master is host lugnode5
url ~ logkiste ~ Syslog.global.logHost = udp://logkiste:514
host ~ ntpuhr1 ~ ntp server ntpuhr1
host ~ vcmaster ~ vCenter server vcmaster disconnected
syslog sender ~ stgaesx1 ~ 2014-05-31T10:00:00Z stgaesx1 vmkernel: cpu1:4)x
prompt ~ thunesx2 ~ [root@thunesx2:~] ls
host ~ slavenode8 ~ HA agent on slavenode8 restarted
cluster ~ Cluster-Waadt ~ cluster: Cluster-Waadt
cluster ~ DC-Wallis ~ datacenter 'DC-Wallis'
cluster ~ RP-Gold-Genf ~ resource pool "RP-Gold-Genf"
cluster ~ Kanton Jura ~ organization = "Kanton Jura"
home ~ fkeusch ~ ls /home/fkeusch
home ~ rzimmer ~ C:\Users\rzimmer\Desktop
home ~ amaurer ~ scp amaurer@jumpy:/tmp/x .
uuid ~ 42 1c 7d 3e ~ uuid.bios = "42 1c 7d 3e 11 22 33 44-55 66 77 88 99 aa bb cc"
uuid ~ 4c4c4544-0039 ~ System UUID 4c4c4544-0039-5a10-8052-b7c04f545831
device ~ 600a0b8000339a2c ~ naa.600a0b8000339a2c0000a1b24e5f6a7b is dead
device ~ com.acmestor ~ iqn.1992-08.com.acmestor:sn.118049
device ~ S2HSNXAH ~ t10.NVMe____Samsung_SSD__S2HSNXAH300871
user ~ mhaldimann ~ 2024-01-02T03:04:05Z In(14) sshd[2101]: Connection closed by authenticating user mhaldimann 10.3.2.1 port 2222 [preauth]
user ~ pzuercher ~ 2024-01-02T03:04:05Z shell[2100]: [pzuercher]: esxcli system version get
user ~ rkaelin ~ 2024-01-02T03:04:05.000Z info hostd[2100] [Originator@6876 sub=Vimsvc.ha-eventmgr opID=abc user=rkaelin] Event 12 : created
user ~ bschaerer ~ Accepted publickey for bschaerer from 10.1.2.3 port 22 ssh2: RSA SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8
user ~ lwyss ~ last login: lwyss pts/0 Mon Jan 1
user ~ daeschli ~ ticket opened by daeschli on behalf of ops
user ~ fgerig ~ "userName": "fgerig"
user ~ kimhof ~ drwxr-xr-x 2 kimhof users 4096 Jan 1 2024 tmp
user ~ oschmidli ~ -rw------- 1 oschmidli oschmidli 120 Jan 1 2024 .bash_history
user ~ trueegg ~ crontab: (trueegg) CMD (/bin/backup.sh)
email ~ p.meyer@kantonal ~ mailto p.meyer@kantonalbank.example
vm ~ SAPPRD07 ~ 2024-01-02T03:04:05Z Event 4711 : SAPPRD07 on esx01 in ha-datacenter is powered on
vm ~ ORA-CLUSTER-A ~ Resource usage alarm 'Virtual machine CPU' on ORA-CLUSTER-A changed from Green to Red
vm ~ ZHWEBSHOP2 ~ Task: Reconfigure virtual machine ZHWEBSHOP2 completed
vm ~ exch13dag ~ [vmx] Log for VMware ESX pid=1 name=exch13dag config=
vm ~ payroll-test ~ /vmfs/volumes/5384f3a1-1c2d3e4f-5a6b-0017a4770010/payroll-test/payroll-test.vmx
vm ~ HR, Portal ~ Vmid 12  HR Portal  [gold01] HR Portal/HR Portal.vmx windows9Server64Guest vmx-09
vm ~ citrix-zh-04 ~ world 12345: vmm0:citrix-zh-04
vm ~ fileclu1 ~ Snapshot 'before patch' of fileclu1 created
vm ~ lnxdb99 ~ WorldID: 3344 Display Name: lnxdb99
vm ~ intranet-old ~ DisplayName: intranet-old
vm ~ kiosk17 ~ cpu3:1234)Swap: vm 5678: 3567: kiosk17 started
vm ~ billing5 ~ vmotion: migration of billing5 from esx02 to esx03
datastore ~ SAN_GOLD_ZH ~ Lost access to datastore SAN_GOLD_ZH due to connectivity issues
datastore ~ EVA-LUN-22 ~ File system [EVA-LUN-22, 5384f3a1-1c2d3e4f-5a6b-0017a4770010] on volume is full
datastore ~ bkp-store-3 ~ Successfully restored access to volume 5384f3a1-1c2d3e4f (bkp-store-3) following
network ~ DMZ-Extern ~ portgroup DMZ-Extern on vSwitch1 was removed
network ~ VLAN_HR_120 ~ Network label: VLAN_HR_120
network ~ dvPG-Backup-9 ~ dvportgroup "dvPG-Backup-9" reconfigured
network ~ vDS-Prod-ZH ~ host joined vDS vDS-Prod-ZH
fqdn ~ sgmgmt01 ~ HostProfile applied to sgmgmt01.intern.spitalx.ch
fqdn ~ spitalx ~ DNS search suffix spitalx.intern
fqdn ~ blade14 ~ blade14.rack3.dc.acmewerke.local: uptime 3 days
host ~ esxprodzh12 ~ Lost connection to host esxprodzh12
host ~ vczhprod ~ vCenter vczhprod disconnected
host ~ ilozh12 ~ iLO hostname ilozh12 reset
host ~ tftp-stage ~ netdump server tftp-stage unreachable
host ~ loghub3 ~ Syslog.global.logHost = udp://loghub3:514,tcp://loghub4:1514
host ~ dellome ~ SNMP trap target dellome@162
host ~ kbgw1 ~ ping kbgw1 (10.3.3.3): 56 data bytes
host ~ ad-dc01 ~ Kerberos KDC ad-dc01 did not answer
ipv4 ~ 10.31.7.44 ~ gateway=10.31.7.44
ipv4 ~ 172.22.9.8 ~ vmk1  PG-Mgmt IPv4 172.22.9.8 255.255.255.0
ipv4 ~ 192.168.77.13 ~ iscsi target 192.168.77.13:3260,1
ipv4 ~ 10.31.7.45 ~ {"ip":"10.31.7.45"}
ipv4 ~ 10.31.7.46 ~ http:%2F%2F10.31.7.46%2Fui
ipv4 ~ 194.56.189.3 ~ public 194.56.189.3 seen
ipv6 ~ 2001:db8:85a3::8a2e:370:7334 ~ addr 2001:db8:85a3::8a2e:370:7334/64
ipv6 ~ fdaa:bbcc::12 ~ [fdaa:bbcc::12]:443
mac ~ 3c:a8:2a:11:22:33 ~ Hardware Address: 3c:a8:2a:11:22:33
mac ~ 3CA82A445566 ~ NIC permanent address 3CA82A445566
mac ~ 3c-a8-2a-77-88-99 ~ station 3c-a8-2a-77-88-99
mac ~ 3ca8.2abb.ccdd ~ cdp neighbour 3ca8.2abb.ccdd
wwn ~ 50014380186a4f2d ~ hba wwpn: 50014380186a4f2d
wwn ~ 6005076300808704 ~ naa.60050763008087040000000000000a1b
wwn ~ 600144f0d5c1 ~ vml.0200010000600144f0d5c1a30000525a4c1234000153554e434f4d
serial ~ SGH432X7YT ~ BIOS S/N SGH432X7YT
serial ~ 2M272304KL ~ System Serial: 2M272304KL
serial ~ CN7016VAB1 ~ <SerialNumber>CN7016VAB1</SerialNumber>
serial ~ PVYKH0ARH4X ~ Disk serial no. PVYKH0ARH4X
serial ~ 5WX1Z22 ~ ServiceTag=5WX1Z22
uuid ~ 30373237-3132 ~ UUID: 30373237-3132-584D-5131-323030314B57
password ~ Sommer2014! ~ --password Sommer2014! --server x
password ~ geheim99x ~ net use \\srv\share geheim99x /user:adm
password ~ Tr0ub4dor ~ passwd=Tr0ub4dor&next=1
password ~ hunter22x ~ root password changed to hunter22x
password ~ pw-4711x ~ "rootPassword" : "pw-4711x"
password ~ S3kr3tPSK ~ wpa_psk=S3kr3tPSK
password ~ qwer7zui ~ ipmitool -H 10.1.1.1 -U admin -P qwer7zui chassis status
password ~ Zürich#12 ~ password: Zürich#12
password ~ chapS3cretX ~ iscsi chap secret chapS3cretX set
community ~ kantonRO77 ~ snmp-server community kantonRO77 RO
community ~ trapper88 ~ snmptrap -v2c -c trapper88 host
licence ~ M002J-0Q2D4-38C18-0J7KH-1QW4M ~ License key M002J-0Q2D4-38C18-0J7KH-1QW4M assigned
token ~ ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8 ~ export GH=ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8
token ~ eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqZG9lIn0 ~ X-Auth: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqZG9lIn0.abcDEF123456
token ~ 9f8e7d6c5b4a39281706f5e4d3c2b1a0ffee0011 ~ api_token 9f8e7d6c5b4a39281706f5e4d3c2b1a0ffee0011
cookie ~ vmware_soap_zz9 ~ Cookie: vmware_soap_session="vmware_soap_zz9"
ldap ~ Abteilung Bau ~ CN=Hans Muster,OU=Abteilung Bau,DC=stadt,DC=ch
ldap ~ Hans Muster ~ bind dn: cn=Hans Muster,ou=IT,dc=stadt,dc=ch
cert ~ vc-zh.stadt.ch ~ subject= /C=CH/O=Stadt/CN=vc-zh.stadt.ch
cert ~ Stadt Beispiel ~ Issuer: C = CH, O = Stadt Beispiel, CN = Root CA 3
annotation ~ Anlage Keller ~ annotation = "Anlage Keller, Tel 044 123 45 67"
phone ~ +41 44 123 45 67 ~ call +41 44 123 45 67 for help
site ~ RZ Glattbrugg ~ location: RZ Glattbrugg, Rack 12
cluster ~ CLU-ZH-PROD ~ Cluster CLU-ZH-PROD: HA failover
cluster ~ PoolFinance ~ resource pool PoolFinance expanded
domain ~ STADTNETZ ~ STADTNETZ\svc_backup logged in
domain ~ werk.intern ~ search werk.intern dc.werk.intern
nfs ~ filer7 ~ mount nfs filer7:/vol/vmware_iso ok
nfs ~ vmware_iso ~ mount nfs filer7:/vol/vmware_iso ok
cifs ~ srvfile3 ~ \\srvfile3\projekte$ not found
cifs ~ projekte ~ \\srvfile3\projekte$ not found
home ~ ahuber ~ /home/ahuber/.ssh/authorized_keys
mail ~ Urs Meili, umeili ~ From: Urs Meili <umeili@werk.ch>
vm ~ Lohn, Prod ~ /vmfs/volumes/5384f3a1-1c2d3e4f-5a6b-0017a4770010/Lohn Prod/Lohn Prod.vmx
password ~ s3x9q4 ~ Kennwort=s3x9q4
ipv6 ~ f.4.0.0 ~ ptr f.4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.a.8.0.2.1.d.f.ip6.arpa
iqn ~ stadt-esx9 ~ iqn.1998-01.com.vmware:stadt-esx9-5a6b7c8d
"""
PLANTS = tuple(
    Plant(kind.strip(), tuple(one.strip() for one in secrets.split(",")), text.strip(" "))
    for kind, secrets, text in (line.split("~", 2) for line in _LINES.strip("\n").split("\n"))
)

# Files that are called by what must not be left.
FILES = (
    ("jsommer_notizen.txt", "jsommer"),
    ("home/lstalder/.bash_history", "lstalder"),
    ("etc/ssh/keys-ohess/authorized_keys", "ohess"),
    ("Users/ivogt/log.txt", "ivogt"),
    ("vmfs/volumes/platin4/HRSRV02/vmware.log", "HRSRV02"),
    ("vmfs/volumes/platin5/x/vmware.log", "platin5"),
    ("KASSE07.vmx", "KASSE07"),
    ("KASSE08_1-flat.vmdk.txt", "KASSE08"),
    ("esxsion3.firma.ch.log", "esxsion3"),
    ("10.77.1.2_hostd.log", "10.77.1.2"),
    ("ip-10-77-1-3.txt", "10-77-1-3"),
    ("vm-support-esxchur1.txt", "esxchur1"),
    ("Kunde Habegger/log.txt", "Habegger"),
    ("dump-0050569a44e2.txt", "0050569a44e2"),
    ("report_CZ3319ABCD.txt", "CZ3319ABCD"),
    ("petra.lang@werk9.ch.log", "petra.lang"),
)
