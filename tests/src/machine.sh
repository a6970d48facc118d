# A machine in a node: what $clean holds, unchanged itself, with $share at /mnt, and a systemd that is
# process 1 of a PID namespace and sees a cgroup namespace. It has the node's network.
set -e
# One that boots again finds what it has written.
if ! mountpoint --quiet "$work"; then
    mount -t tmpfs tmpfs "$work"
    mkdir "$work/cgroup" "$work/upper" "$work/scratch" "$work/root"
    mount -t cgroup2 cgroup2 "$work/cgroup"
fi
cd "$work"
# Of machines whose end nobody saw. Those in use cannot be removed.
find cgroup -mindepth 1 -depth -type d -path '*/router-machine-*' -exec rmdir {} + 2>/dev/null || true
mkdir -p "cgroup/$name"
echo 0 > "cgroup/$name/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup sh -e -c '
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$clean,upperdir=upper,workdir=scratch" root
cd root
mount -t proc proc proc
# Settings that are the whole kernel'"'"'s are not for this machine to change.
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do
    cp -a "/dev/$device" dev
done
mount --bind "$share" mnt
hostname > etc/hostname
mkdir -p before
pivot_root . before
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . sh -e -c "
umount -l /before
# systemd hands over credentials by mounts that its units are to see.
mount --make-rshared /
exec /lib/systemd/systemd --system"
'
