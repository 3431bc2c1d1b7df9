
# The names of running containers, for the commands that take one.
function __subuidless_names
    subuidless ps 2>/dev/null | awk 'NR > 1 { print $1 }'
end
complete -c subuidless -n '__fish_subuidless_using_subcommand exec logs kill
    and not __fish_seen_subcommand_from (__subuidless_names)' -f -a '(__subuidless_names)'
