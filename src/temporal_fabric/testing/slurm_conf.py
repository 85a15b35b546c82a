"""The configuration files of a site of `temporal_fabric.testing.slurm_site`."""

# CPUs is invented (config_overrides), so that several small jobs run at once on a small machine;
# memory is enforced by polling, the way of a site without cgroups.
SLURM_CONF = """\
ClusterName=fabric
SlurmctldHost=localhost({ip})
SlurmctldPort={slurmctld}
SlurmdPort={slurmd}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={folder}/state/jwt.key
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/state/slurmctld.pid
SlurmdPidFile={folder}/spool/slurmd.pid
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
PropagateResourceLimits=NONE
ReturnToService=2
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
DefMemPerCPU=64
Licenses=solver:2
NodeName=node1 NodeHostname={host} NodeAddr={ip} CPUs=64 RealMemory=8192 State=UNKNOWN
PartitionName=main Nodes=node1 Default=YES MaxTime=60 State=UP
PartitionName=short Nodes=node1 MaxTime=10 State=UP
"""

SSHD_CONFIG = """\
ListenAddress {ip}
Port {sshd}
HostKey {folder}/ssh/host
PidFile none
AllowUsers {user}
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
UsePAM no
StrictModes no
MaxStartups 100:30:200
AllowTcpForwarding yes
SetEnv SLURM_CONF={folder}/slurm.conf
Subsystem sftp internal-sftp
"""
