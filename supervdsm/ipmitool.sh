#!/bin/sh
# ipmitool, for fence agents. They give it the password as an argument, which every user of the host can read while it runs; here
# that goes, and ipmitool takes the password from its environment (IPMI_PASSWORD), where the helper has put it and root alone can
# read it. What comes in place of the password is of no use to anybody.
skip=
for argument do
    shift
    if [ "$skip" ]; then
        skip=
    elif [ "$argument" = -P ]; then
        skip=yes
        set -- "$@" -E
    else
        set -- "$@" "$argument"
    fi
done
exec ipmitool "$@"
